"""What dataset_info.json says of a data set: LLaMA-Factory 0.9.5 data/parser.py, DatasetAttr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools",
    "images", "videos", "audios", "chosen", "rejected", "kto_tag",
)  # fmt: skip
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
FORMATS = ("alpaca", "sharegpt", "openai")


class Attributes(msgspec.Struct, frozen=True):
    """Names of the columns and of the roles of one data set. A column that is None is not used.

    An entry with `columns` resets every column that it does not name, one with `tags` every tag (parser.py, DatasetAttr.join).
    """

    formatting: str = "alpaca"
    ranking: bool = False
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    num_samples: int | None = None
    system: str | None = None
    tools: str | None = None
    images: str | None = None
    videos: str | None = None
    audios: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    kto_tag: str | None = None
    prompt: str | None = "instruction"
    query: str | None = "input"
    response: str | None = "output"
    history: str | None = None
    messages: str | None = "conversations"
    role_tag: str | None = "from"
    content_tag: str | None = "value"
    user_tag: str | None = "human"
    assistant_tag: str | None = "gpt"
    observation_tag: str | None = "observation"
    function_tag: str | None = "function_call"
    system_tag: str | None = "system"


def attributes(entry: Mapping[str, Any]) -> Attributes:
    """The attributes that an entry of dataset_info.json gives."""
    given: dict[str, Any] = {
        "formatting": entry.get("formatting", "alpaca"),
        "ranking": bool(entry.get("ranking", False)),
        "subset": entry.get("subset"),
        "split": entry.get("split", "train"),
        "folder": entry.get("folder"),
        "num_samples": entry.get("num_samples"),
    }
    for group, names in (("columns", COLUMNS), ("tags", TAGS)):
        if isinstance(entry.get(group), Mapping):
            given |= {name: entry[group].get(name) for name in names}
    return Attributes(**given)


def needed_columns(about: Attributes) -> list[str]:
    """Columns that the converter asks every row for: one that no row has is a KeyError (data/converter.py)."""
    if about.formatting == "alpaca":
        names = [about.history, about.prompt, about.query, *_answer_columns(about)]
    else:
        pair = (about.chosen, about.rejected) if about.ranking else ()
        names = [about.messages, about.kto_tag, *pair]
    media = (about.images, about.videos, about.audios)
    asked = (about.system, about.tools) if about.formatting != "openai" else ()  # openai: example.get()
    return list(dict.fromkeys(name for name in (*names, *asked, *media) if name))


def _answer_columns(about: Attributes) -> tuple[str | None, ...]:
    """The columns of the answer: the pair of a ranking set, otherwise the response."""
    return (about.chosen, about.rejected) if about.ranking else (about.response, about.kto_tag)
