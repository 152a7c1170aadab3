"""TensorBoard event files: scalars by step, and the configuration that the Trainer stores in them as text when training begins.

Format: TFRecord frames (length, its CRC, data, its CRC) of the protobuf message tensorflow.Event; only the fields that hold scalars and
texts are walked. A torn tail (the run was killed, or still runs) ends the reading, nothing more.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.events import ConfigSeen, Event, Fact
from doctor.readers.base import Context, File, Lane, ReaderBase, Record

_LONGEST = 64 << 20
_HEAD_EVENTS = 200
"""The texts stand among the first events."""
_NAMES = {"lm loss": "loss", "loss/train": "loss", "train/train_loss": "", "train/total_flos": "", "train/train_runtime": "",
          "train/train_samples_per_second": "", "train/train_steps_per_second": "", "loss/val": "eval_loss", "loss/valid": "eval_loss",
          "val/loss": "eval_loss", "valid/loss": "eval_loss", "val_loss": "eval_loss", "grad-norm": "grad_norm",
          "learning-rate": "learning_rate", "train/avg_train_loss": "loss", "training loss": "loss", "train_loss": "loss"}  # fmt: skip
"""Tags -> names of trainer_state.json; empty: the summary at the end, no step's value."""


class TensorBoard(ReaderBase):
    """Every point is kept; scalars may be simple values or tensors."""

    kind = "tensorboard"
    lane: Lane = "metrics"

    def claims(self, path: Path, head: bytes) -> bool:
        return ".tfevents." in path.name

    def configs(self, file: File) -> Iterator[Event]:
        for count, data in enumerate(frames(file)):
            if count > _HEAD_EVENTS:
                break
            _, _, values = event(data)
            for tag, _, text in values:
                if text is not None:
                    yield from _text(tag, text, file)
        file.source.problems.clear()

    def read(self, file: File, context: Context) -> Iterator[Event | Record]:
        held: Record | None = None
        for data in frames(file):
            time, step, values = event(data)
            metrics = {name: value for tag, value, _ in values if value is not None and (name := _name(tag))}
            if not metrics:
                continue
            file.source.records += len(metrics)
            if held is not None and held.step == step and not metrics.keys() & held.metrics.keys():
                held.metrics.update(metrics)
                continue
            if held is not None:
                yield held
            held = Record(step, metrics, file.where(step=step), time=time)
        if held is not None:
            yield held


def _name(tag: str) -> str:
    low = tag.lower()
    if low in _NAMES:
        return _NAMES[low]
    if tag.startswith("train/"):
        return tag[6:]
    return f"eval_{tag[5:]}" if tag.startswith("eval/") else tag


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


def frames(file: File) -> Iterator[bytes]:
    """The data of every whole frame; what follows damage is left, with a problem in the source."""
    buffer = b""
    for chunk in file.chunks():
        buffer += chunk
        place, size = 0, len(buffer)
        while size - place >= 12:
            (length,) = struct.unpack_from("<Q", buffer, place)
            if length > _LONGEST:
                file.source.problem("damaged: not read beyond the damage")
                return
            if size - place < length + 16:
                break
            yield buffer[place + 12 : place + 12 + length]
            place += length + 16
        buffer = buffer[place:]
    if buffer:
        file.source.problem("its last event is incomplete (the writer was killed, or still writes)")


def event(data: bytes) -> tuple[float, int, list[tuple[str, float | None, str | None]]]:
    """(wall time, step, [(tag, scalar, text)]) of one Event message; what is damaged or foreign is left out."""
    time, step = 0.0, 0
    values: list[tuple[str, float | None, str | None]] = []
    try:
        for field, value in fields(data):
            if field == 1 and type(value) is bytes:
                (time,) = struct.unpack("<d", value)
            elif field == 2 and type(value) is int:
                step = value if value < 1 << 63 else 0
            elif field == 5 and type(value) is bytes:
                values += [_summary_value(inner) for number, inner in fields(value) if number == 1 and type(inner) is bytes]
    except (struct.error, IndexError, ValueError):
        pass
    return time, step, values


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message: integers of varints, bytes of everything else."""
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        wire = key & 7
        if wire == 0:
            number, place = _varint(data, place)
            yield key >> 3, number
            continue
        if wire == 2:
            size, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("no protobuf")
        if place + size > end:
            raise ValueError("torn")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("no varint")


def _summary_value(data: bytes) -> tuple[str, float | None, str | None]:
    tag, scalar, text = "", None, None
    for field, value in fields(data):
        if type(value) is not bytes:
            continue
        if field == 1:
            tag = value.decode("utf-8", "replace")
        elif field == 2 and len(value) == 4:
            scalar = struct.unpack("<f", value)[0]
        elif field == 8:
            scalar, text = _tensor(value)
    return tag, scalar, text


def _tensor(data: bytes) -> tuple[float | None, str | None]:
    """A scalar or text tensor (tensorflow.TensorProto: 1 dtype, 4 content, 5 floats, 6 doubles, 8 strings)."""
    kind: Any = None
    for field, value in fields(data):
        if field == 1:
            kind = value
        elif type(value) is not bytes:
            continue
        elif field == 8:
            return None, value.decode("utf-8", "replace")
        elif (field == 5 or (field == 4 and kind == 1)) and len(value) == 4:
            return struct.unpack("<f", value)[0], None
        elif (field == 6 or (field == 4 and kind == 2)) and len(value) == 8:
            return struct.unpack("<d", value)[0], None
    return None, None
