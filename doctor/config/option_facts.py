"""Everything known of one option, for `lfdoctor explain OPTION` and the JSON Schema: help, values by version, the guide's word."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from doctor.config import knowledge
from doctor.config.option_names import TRAINERS
from doctor.config.options import table
from doctor.support import cache
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

SWITCHES = {**knowledge.MEGATRON, "v1": "USE_V1=1", "eval": "llamafactory-cli eval", "infer": "llamafactory-cli chat"}
"""A trainer or command that has options of its own -> what starts it."""


class GuideWord(msgspec.Struct, frozen=True):
    """What the guide says of an option (`advice`), in which section, and where LLaMA-Factory of now differs (`today`)."""

    section: str
    advice: Text
    today: Text | None = None


class Period(msgspec.Struct, frozen=True):
    """An option in the versions from `since` on: `entry` holds type, default and choices; None where it does not exist."""

    of: str
    since: str
    entry: Mapping[str, Any] | None


@functools.cache
def guide_words() -> Mapping[str, GuideWord]:
    """Option -> the guide's word (rules/guide_options.yaml)."""
    return convert(cache.load_yaml(rules_folder() / "guide_options.yaml")["options"], dict[str, GuideWord])


@functools.cache
def guide_sections() -> Mapping[str, Text]:
    """Section of the guide -> its title."""
    return convert(cache.load_yaml(rules_folder() / "guide_options.yaml")["sections"], dict[str, Text])


@functools.cache
def _helps() -> Mapping[str, Mapping[str, str]]:
    found: Mapping[str, Mapping[str, str]] = msgspec.json.decode((rules_folder() / "option_help.yaml").read_bytes())
    return found


def help_of(name: str, trainer: str = "v0") -> str | None:
    """LLaMA-Factory's own help text of an option (English), or transformers'."""
    if trainer == "mcore_adapter":
        return _helps()["mcore_adapter/options"].get(name)
    own = _helps().get(f"llamafactory/{trainer}", {}).get(name)
    return own or (_helps()["transformers/options"].get(name) if trainer == "v0" else None)


def names() -> list[str]:
    """Every option of every trainer of LLaMA-Factory, and those that only the guide has."""
    others = {name for trainer in TRAINERS if trainer != "v1_plugins" for name in knowledge.options_of(trainer)}
    return sorted({*table(), *others, *guide_words()})


def trainers_of(name: str) -> list[str]:
    """The trainers other than v0's that have the option."""
    return [trainer for trainer in TRAINERS if name in knowledge.options_of(trainer)]


def periods(name: str, trainer: str = "v0") -> Iterator[Period]:
    """How the option changed, oldest first; of v0 in LLaMA-Factory and then in transformers."""
    if trainer != "v0":
        yield from (Period("llamafactory", since, entry) for since, entry in knowledge.options_of(trainer).get(name, ()))
        return
    option = table().get(name)
    for of in ("llamafactory", "transformers") if option else ():
        yield from (Period(of, since, entry) for since, entry in knowledge.option_history(of, name))
