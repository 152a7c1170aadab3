"""train_results.json, eval_results.json, ... and wandb-summary.json: the figures of a finished phase."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.documents import json_object
from doctor.readers.file import File
from doctor.readers.values import number

_NAMES = frozenset({"train_results.json", "all_results.json", "eval_results.json", "predict_results.json", "wandb-summary.json"})
_FACTS = {
    "train_runtime": "train.runtime_seconds",
    "train_samples_per_second": "train.samples_per_second",
    "train_steps_per_second": "train.steps_per_second",
    "train_loss": "train.loss",
    "eval_loss": "eval.loss",
    "train_samples": "examples.num",
}


class Results(ReaderBase):
    """train_results.json is written only after training ended as planned (or was stopped on purpose).

    W&B's summary has the last value of everything logged; `train/train_loss` in it says the same.
    """

    kind = "results"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name in _NAMES

    def configs(self, file: File) -> Iterator[Event]:
        values = json_object(file, 16 << 20)
        if values is None:
            return
        values = {str(name).removeprefix("train/"): value for name, value in values.items()}
        for name, fact in _FACTS.items():
            value = number(values.get(name))
            if value is not None:
                yield Fact(where=file.where(), name=fact, value=int(value) if name == "train_samples" and value % 1 == 0 else value)
        if "train_runtime" in values and "train_loss" in values:
            yield Fact(where=file.where(), name="run.completed", value=True)
