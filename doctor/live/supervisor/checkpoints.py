"""Checkpoints of a run: which of them are whole, and one made fit for a run with another batch size. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

_NAME = re.compile(r"checkpoint-(\d{1,12})")
_HEADER_BYTES = 100 << 20
"""safetensors' own limit for its header."""
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "model.safetensors", "model-*.safetensors", "pytorch_model*.bin")
FINAL = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin", "*.index.json")
"""With one of these and no checkpoint in output_dir LLaMA-Factory refuses to start (hparams/parser.py, CHECKPOINT_NAMES)."""


class Checkpoint(msgspec.Struct, frozen=True, order=True):
    """A whole checkpoint: weights, optimizer and schedule after `step`."""

    step: int
    path: Path


def whole(output: Path) -> list[Checkpoint]:
    """The checkpoints of an output folder that a training can continue from, oldest first; those cut off while written are left out."""
    return sorted(Checkpoint(step, path) for step, path in _folders(output) if _is_whole(path, step))


def untouched(output: Path) -> bool:
    """Whether a training can start in this folder from zero: no checkpoint it would resume, no weights it would refuse to overwrite."""
    return not any(_folders(output)) and not any(one for name in FINAL for one in _glob(output, name))


def make_room(output: Path, limit: int, keep: Checkpoint | None, since: float) -> list[Path]:
    """What `save_total_limit` would delete after the next save, deleted before it, for a full disk has no room for that save.

    Only folders written after `since` (seconds since the epoch): torn ones, and of the whole ones all but the newest `limit` and `keep`.
    """
    kept = {one.path for one in [*whole(output)[-limit:], *([keep] if keep else [])]}
    gone = [path for _, path in _folders(output) if path not in kept and path.stat().st_mtime >= since and not path.is_symlink()]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return gone


def for_batch(checkpoint: Checkpoint, target: Path, per_device: int) -> Path:
    """A copy (hard links, no bytes) whose trainer_state.json tells the new batch per GPU: transformers before 5 takes it from there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(checkpoint.path, target, copy_function=_link)
    state = target / "trainer_state.json"
    values = json.loads(state.read_bytes())
    state.unlink()
    state.write_text(json.dumps({**values, "train_batch_size": per_device}), encoding="utf-8")
    return target


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


def _folders(output: Path) -> Iterator[tuple[int, Path]]:
    for path in _glob(output, "checkpoint-*"):
        found = _NAME.fullmatch(path.name)
        if found and path.is_dir():
            yield int(found[1]), path


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _is_whole(path: Path, step: int) -> bool:
    """transformers writes weights, optimizer, schedule, random state and last trainer_state.json (Trainer._save_checkpoint)."""
    try:
        state = json.loads((path / "trainer_state.json").read_bytes())
        if not isinstance(state, dict) or state.get("global_step") != step:
            return False
        if any(path.glob("global_step*")) or (path / "latest").exists():
            return (path / (path / "latest").read_text(encoding="utf-8").strip()).is_dir()
        if any(path.glob("optimizer_*")) or (path / "optimizer").is_dir():  # FSDP's sharded states
            return True
        weights = [one for name in _WEIGHTS for one in path.glob(name)]
        states = [path / "optimizer.pt", path / "scheduler.pt"]
        return bool(weights) and all(map(_is_closed, [*weights, *states]))
    except (OSError, ValueError):
        return False


def _is_closed(path: Path) -> bool:
    """Whether the file was written to its end: a zip has its directory there, a safetensors file is as long as its header says."""
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else _HEADER_BYTES + 1
        if length > _HEADER_BYTES:
            return False
        header = json.loads(file.read(length))
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    return bool(8 + length + max(ends, default=0) == size)
