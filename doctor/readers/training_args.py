"""training_args.bin: the attributes of a TrainingArguments, read without unpickling (formats/pickles.py).

Format: torch.save's zip, or the bare pickle of old PyTorch.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.core.events import ConfigSeen, Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.file import File
from doctor.readers.formats.pickles import DAMAGE, PickledObject, replay

_MAX_BYTES = 4 << 20
_PLAIN = (str, int, float, bool)
_NOT_OPTIONS = frozenset({"generation_max_length", "distributed_state", "_n_gpu", "hub_token", "push_to_hub_token"})


class TrainingArgs(ReaderBase):
    """Also the copies in checkpoints, which are the same."""

    kind = "training_args"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name in ("training_args.bin", "training_args.json")

    def configs(self, file: File) -> Iterator[Event]:
        data = self._pickle(file)
        if data is None:
            return
        if data.lstrip().startswith(b"{"):  # LLaMA-Factory before 0.2 wrote JSON under this name
            yield from _of_json(data, file)
            return
        try:
            built = replay(data)
        except DAMAGE as error:
            file.source.problem(f"not a readable pickle (it is never unpickled): {error}")
            return
        state = built.state if isinstance(built, PickledObject) else None
        if isinstance(state, tuple):
            state = next((part for part in state if isinstance(part, dict)), None)
        if not isinstance(state, dict):
            file.source.problem("holds no training arguments")
            return
        values = {key: value for key, raw in state.items() if isinstance(key, str) and (value := _value(raw)) is not None}
        file.source.records = len(values)
        yield from arguments_seen(values, file)
        world = _world_size(state.get("distributed_state"))
        if world is not None:
            yield Fact(where=file.where(), name="world_size", value=world)

    def _pickle(self, file: File) -> bytes | None:
        try:
            with zipfile.ZipFile(file.path) as archive:
                entry = next((entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")), None)
                if entry is None or entry.file_size > _MAX_BYTES:
                    file.source.problem("no data.pkl of a usual size in it")
                    return None
                return archive.open(entry).read(_MAX_BYTES)
        except zipfile.BadZipFile:
            return file.whole(_MAX_BYTES)
        except (OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            file.source.problem(f"cannot be read: {error}")
            return None


def _of_json(data: bytes, file: File) -> Iterator[Event]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        file.source.problem(f"damaged JSON: {error}")
        return
    plain = {key: kept for key, value in values.items() if (kept := _value(value)) is not None}
    file.source.records = len(plain)
    yield from arguments_seen(plain, file)


def arguments_seen(values: dict[str, Any], file: File) -> Iterator[Event]:
    """ConfigSeen of the attributes of a TrainingArguments; LLaMA-Factory hands cutoff_len down as generation_max_length."""
    options = {key: value for key, value in values.items() if not key.startswith("_") and key not in _NOT_OPTIONS}
    length = values.get("generation_max_length")
    if type(length) is int:
        options["cutoff_len"] = length
    if "evaluation_strategy" in options:  # the name up to transformers 4.45
        options.setdefault("eval_strategy", options.pop("evaluation_strategy"))
    if options:
        yield ConfigSeen(where=file.where(), values=options, origin="training_args")


def _value(raw: Any) -> Any:
    """A plain value; an enumeration (`IntervalStrategy("steps")`) is its argument."""
    if isinstance(raw, PickledObject):
        argument = raw.args[0] if isinstance(raw.args, tuple) and raw.args else None
        return argument if isinstance(argument, _PLAIN) else None
    if isinstance(raw, _PLAIN):
        return raw
    if isinstance(raw, list) and all(isinstance(entry, _PLAIN) for entry in raw):
        return list(raw)
    return None


def _world_size(state: Any) -> int | None:
    inner = state.state if isinstance(state, PickledObject) else None
    if isinstance(inner, tuple):
        inner = next((part for part in inner if isinstance(part, dict)), None)
    count = inner.get("num_processes") if isinstance(inner, dict) else None
    return count if type(count) is int and count > 0 else None
