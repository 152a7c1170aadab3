"""TensorBoard event files: scalars by step, and the configuration that the Trainer stores in them as text when training begins.

Format: TFRecord frames (frames.py) of the protobuf message tensorflow.Event (message.py). A damaged event is left out; an incomplete last
event (the run was killed, or still runs) ends the reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import ConfigSeen, Event, Fact
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.file import File
from doctor.readers.tensorboard.frames import frames
from doctor.readers.tensorboard.message import parse
from doctor.readers.trackers import metric_name, steps_of

OURS = ".lfdoctor"
"""End of the name of an event file that `lfdoctor analyze --write-back` wrote: no file of the run."""
_HEAD_EVENTS = 200
"""Events searched for the configuration; the Trainer writes it first."""
_NAMES = {"lm loss": "loss", "loss/train": "loss", "train/train_loss": "", "train/total_flos": "", "train/train_runtime": "",
          "train/train_samples_per_second": "", "train/train_steps_per_second": "", "loss/val": "eval_loss", "loss/valid": "eval_loss",
          "val/loss": "eval_loss", "valid/loss": "eval_loss", "val_loss": "eval_loss", "grad-norm": "grad_norm",
          "learning-rate": "learning_rate", "train/avg_train_loss": "loss", "training loss": "loss", "train_loss": "loss"}  # fmt: skip
"""Tag -> name in trainer_state.json; empty: a summary of the whole run, not a step's value."""


_MAX_TAGS = 10_000
"""Tags whose names are remembered."""


class TensorBoard(ReaderBase):
    """Keeps every point. A scalar is a simple value or a tensor."""

    kind = "tensorboard"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return ".tfevents." in path.name and not path.name.endswith(OURS)

    def configs(self, file: File) -> Iterator[Event]:
        for count, data in enumerate(frames(file)):
            if count > _HEAD_EVENTS:
                break
            for tag, _, text in parse(data).values:
                if text is not None:
                    yield from _text(tag, text, file)
        file.source.problems.clear()

    def read(self, file: File, context: Context) -> Iterator[Event]:
        yield from steps_of(_points(file), file)


def _points(file: File) -> Iterator[tuple[int, str, float, float]]:
    names: dict[str, str] = {}
    for data in frames(file):
        time, step, values, damaged = parse(data)
        if damaged:
            file.source.problem("damaged events: left out")
            continue
        for tag, value, _ in values:
            name = names.get(tag)
            if name is None:
                name = names.setdefault(tag, _name(tag)) if len(names) < _MAX_TAGS else _name(tag)
            if name and value is not None:
                yield step, name, value, time


def _name(tag: str) -> str:
    low = tag.lower()
    return _NAMES[low] if low in _NAMES else metric_name(tag)


def _text(tag: str, text: str, file: File) -> Iterator[Event]:
    name = tag.removesuffix("/text_summary")
    if name not in ("args", "model_config"):
        return
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(values, dict):
        return
    if name == "model_config":
        yield Fact(where=file.where(), name="model.config", value=values)
        return
    options = {key: value for key, value in values.items() if value is not None and not key.startswith("_")}
    yield ConfigSeen(where=file.where(), values=options, origin="events")
