"""config.json of a saved model: its architecture, its sizes, and the model that it was trained from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import ConfigSeen, Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.documents import json_object
from doctor.readers.file import File

_CAUSAL_LM = ("ForCausalLM", "LMHeadModel")
"""Endings of the architectures that are trained on the cross-entropy of the next token."""


_TRAINERS = ("training_args.bin", "trainer_state.json", "trainer_log.jsonl")
"""Files that the trainer saves beside the model it trains. Elsewhere a config.json may belong to another model."""
_SIZES = frozenset({"hidden_size", "n_embd", "text_config", "thinker_config", "llm_config"})
"""Keys that a language model's configuration has and other files of that name do not."""


class ModelConfig(ReaderBase):
    """transformers writes it next to full weights; `_name_or_path` is what they were loaded from (up to transformers 4.x)."""

    kind = "model_config"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name == "config.json" and (b'"model_type"' in head or b'"architectures"' in head)

    def configs(self, file: File) -> Iterator[Event]:
        values = json_object(file, 4 << 20)
        if values is None:
            return
        where = file.where()
        if not values.keys().isdisjoint(_SIZES) and any(file.path.with_name(name).is_file() for name in _TRAINERS):
            yield Fact(where=where, name="model.config", value=values)
        if isinstance(values.get("model_type"), str):
            yield Fact(where=where, name="model.type", value=values["model_type"])
        names = values.get("architectures")
        if isinstance(names, list) and any(str(name).endswith(_CAUSAL_LM) for name in names):
            yield Fact(where=where, name="model.task", value="CAUSAL_LM")
        if isinstance(base := values.get("_name_or_path"), str) and base:
            yield ConfigSeen(where=where, values={"model_name_or_path": base}, origin="inferred")
