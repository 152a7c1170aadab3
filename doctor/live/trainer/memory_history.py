"""Who holds GPU memory when it runs out (opt-in): torch's memory history, written once when an out-of-memory ends the training.

Same format as torch.cuda.memory._dump_snapshot: pytorch.org/memory_viz shows it, `doctor.readers.snapshots` reads it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.live.trainer.recorder import log_stderr, run_with_timeout
from doctor.live.trainer.snapshot import cuda

NAME = "lfdoctor-memory-rank{rank}.pickle"
LIMIT = 48 << 20
"""Largest file in bytes; stacks of the smallest blocks are dropped first."""
WRITE_SECONDS = 60.0
"""Longest wait of a dying process for the file."""
BLOCKS = 20_000
"""Number of largest blocks that keep their stacks."""


class MemoryHistory:
    """The opt-in history of one training; where torch cannot keep one, only the snapshot is lost."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted, self.recording = wanted, False

    def begin(self) -> None:
        """Start recording, if wanted and not done yet."""
        if self.wanted and not self.recording:
            try:
                self.recording = begin()
            except Exception as error:  # a torch version with another interface
                self.wanted = False
                log_stderr(f"no memory snapshot here: {type(error).__name__}: {error}")

    def training_failed(self, error: BaseException, folder: Path | None, rank: int) -> None:
        """Write the snapshot once if `error` is CUDA's out-of-memory."""
        if self.recording and is_out_of_memory(error) and folder is not None:
            self.recording = False
            run_with_timeout(lambda: write(folder, rank), WRITE_SECONDS)


def begin() -> bool:
    """Record the owner of every live allocation (2 us each, no history); False if no GPU is used.

    A recording that the user started continues as they set it. Raises what torch raises.
    """
    cuda_module = cuda()
    if cuda_module is None:
        return False
    on = getattr(getattr(sys.modules["torch"], "_C", None), "_cuda_isHistoryEnabled", lambda: False)
    if not on():
        cuda_module.memory._record_memory_history("state", context="state", stacks="python")
    return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a CUDA out-of-memory error, in any version of torch."""
    return type(error).__name__ == "OutOfMemoryError" or (isinstance(error, RuntimeError) and "CUDA out of memory" in str(error)[:1000])


def write(folder: Path, rank: int) -> Path | None:
    """Write the snapshot into `folder`; None if it cannot be made small enough. Raises OSError, and what torch raises."""
    cuda_module = cuda()
    if cuda_module is None:
        return None
    dump = dict(cuda_module.memory._snapshot())
    dump["device_traces"] = [[] for _ in dump.get("device_traces") or ()]
    for kept in (BLOCKS, BLOCKS // 10, 0):
        _forget(dump, kept)
        data = pickle.dumps(dump)
        if len(data) <= LIMIT:
            path = folder / NAME.format(rank=rank)
            path.with_suffix(".part").write_bytes(data)
            return path.with_suffix(".part").replace(path)
    return None


def _forget(dump: dict[str, Any], kept: int) -> None:
    """Drop the stacks of all but the `kept` largest blocks."""
    blocks = sorted(_blocks(dump), key=lambda block: -int(block.get("size", 0)))
    for block in blocks[kept:]:
        for name in ("frames", "history"):
            if block.get(name):
                block[name] = []


def _blocks(dump: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for segment in dump.get("segments", ()):
        segment.pop("frames", None)
        yield from segment.get("blocks", ())
