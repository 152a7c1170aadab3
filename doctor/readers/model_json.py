"""config.json that transformers saves with a model: the shape of what a full or merged run trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.documents import json_object
from doctor.readers.file import File

_TRAINERS = ("training_args.bin", "trainer_state.json", "trainer_log.jsonl")
"""Files that the trainer saves beside the model it trains. Elsewhere a config.json may belong to another model."""
_MODEL_KEYS = frozenset({"hidden_size", "n_embd", "text_config", "thinker_config", "llm_config"})
"""Keys that a language model's configuration has and other files of that name do not."""


class ModelJson(ReaderBase):
    """Only in an output folder or a checkpoint."""

    kind = "model_config"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name == "config.json" and b'"model_type"' in head and any(path.with_name(name).is_file() for name in _TRAINERS)

    def configs(self, file: File) -> Iterator[Event]:
        values = json_object(file, 4 << 20)
        if values is not None and not values.keys().isdisjoint(_MODEL_KEYS):
            yield Fact(where=file.where(), name="model.config", value=values)
