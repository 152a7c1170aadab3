"""Checkpoints of a run: which are complete, and a copy that fits another batch size. Nothing is ever unpickled."""

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
    """A checkpoint folder: weights, optimizer and schedule after `step`."""

    step: int
    path: Path


def whole(output: Path) -> list[Checkpoint]:
    """Complete checkpoints of an output folder, oldest first; those cut off while being written are left out."""
    return sorted(point for point in _folders(output) if is_whole(point))


def newest(output: Path) -> Checkpoint | None:
    """The checkpoint with the highest number, complete or not: what transformers' get_last_checkpoint returns."""
    return max(_folders(output), default=None)


def untouched(output: Path) -> bool:
    """Whether a training can start here from zero: no checkpoint it would resume, no weights it would refuse to overwrite."""
    return newest(output) is None and not any(path for name in FINAL for path in _glob(output, name))


def make_room(output: Path, limit: int, keep: Checkpoint | None, since: float) -> list[Path]:
    """Delete before a save what `save_total_limit` would delete after it: a full disk has no room for that save.

    Deletes only folders written after `since` (seconds since the epoch): incomplete ones, and of the complete ones all but the newest
    `limit` and `keep`. Returns what was deleted.
    """
    kept = {point.path for point in [*whole(output)[-limit:], *([keep] if keep else [])]}
    paths = [point.path for point in _folders(output)]
    gone = [path for path in paths if path not in kept and path.stat().st_mtime >= since and not path.is_symlink()]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return gone


def for_batch(checkpoint: Checkpoint, target: Path, per_device: int) -> Path:
    """A copy (hard links) whose trainer_state.json holds the new batch size per GPU, which transformers before 5 takes from there."""
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


def _folders(output: Path) -> Iterator[Checkpoint]:
    for path in _glob(output, "checkpoint-*"):
        found = _NAME.fullmatch(path.name)
        if found and path.is_dir():
            yield Checkpoint(int(found[1]), path)


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def is_whole(point: Checkpoint) -> bool:
    """Whether it was written to its end.

    transformers writes weights, optimizer, schedule, random state and last trainer_state.json (Trainer._save_checkpoint).
    """
    path, step = point.path, point.step
    if (path / "metadata.json").is_file() and not (path / "trainer_state.json").exists():  # LLaMA-Factory's v1 trainer marks the end
        return (path / "CHECKPOINT_COMPLETE").exists()
    try:
        state = json.loads((path / "trainer_state.json").read_bytes())
        if not isinstance(state, dict) or state.get("global_step") != step:
            return False
        if any(path.glob("global_step*")) or (path / "latest").exists():
            return (path / (path / "latest").read_text(encoding="utf-8").strip()).is_dir()
        if any(path.glob("optimizer_*")) or (path / "optimizer").is_dir():  # FSDP's sharded states
            return True
        weights = [file for name in _WEIGHTS for file in path.glob(name)]
        states = [path / "optimizer.pt", path / "scheduler.pt"]
        return bool(weights) and all(map(_is_closed, [*weights, *states]))
    except (OSError, ValueError):
        return False


def is_damaged(point: Checkpoint) -> bool:
    """Whether it is incomplete or a checksum in it is wrong. Reads the whole checkpoint (about 1 GB/s)."""
    if not is_whole(point):
        return True
    for path in [*point.path.glob("*.pt"), *point.path.glob("*.bin")]:
        try:
            with zipfile.ZipFile(path) as file:
                if file.testzip() is not None:
                    return True
        except zipfile.BadZipFile:  # training_args.bin of an old torch is no zip
            continue
        except OSError:
            return True
    return False


def _is_closed(path: Path) -> bool:
    """Whether a file is complete: a zip has its directory at the end, a safetensors file the length that its header says."""
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else _HEADER_BYTES + 1
        if length > _HEADER_BYTES:
            return False
        header = json.loads(file.read(length))
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return bool(8 + length + max(ends, default=0) == size)
