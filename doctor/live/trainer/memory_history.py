"""Who holds the card's memory when it runs out (opt-in): torch's own memory history, written once when an out-of-memory ends the training.

A snapshot as torch.cuda.memory._dump_snapshot makes it, so that pytorch.org/memory_viz shows it; `doctor.readers.snapshots` reads it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.live.trainer.snapshot import cuda

NAME = "lfdoctor-memory-rank{rank}.pickle"
LIMIT = 48 << 20
"""The file is no larger than so many bytes; the stacks of the smallest blocks go first."""
BLOCKS = 20_000
"""So many of the largest blocks keep their stacks."""


def begin() -> bool:
    """Notes from now on who allocates what is alive (2 us an allocation, no history); False where no card is used.

    Somebody's own recording goes on as they set it. Raises what torch raises.
    """
    card = cuda()
    if card is None:
        return False
    on = getattr(getattr(sys.modules["torch"], "_C", None), "_cuda_isHistoryEnabled", lambda: False)
    if not on():
        card.memory._record_memory_history("state", context="state", stacks="python")
    return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is CUDA's out-of-memory, of any version of torch."""
    return type(error).__name__ == "OutOfMemoryError" or (isinstance(error, RuntimeError) and "CUDA out of memory" in str(error)[:1000])


def write(folder: Path, rank: int) -> Path | None:
    """The snapshot in `folder`, None where it cannot be made small enough. Raises OSError, and what torch raises."""
    card = cuda()
    if card is None:
        return None
    told = dict(card.memory._snapshot())
    told["device_traces"] = [[] for _ in told.get("device_traces") or ()]
    for kept in (BLOCKS, BLOCKS // 10, 0):
        _forget(told, kept)
        data = pickle.dumps(told)
        if len(data) <= LIMIT:
            path = folder / NAME.format(rank=rank)
            path.with_suffix(".part").write_bytes(data)
            return path.with_suffix(".part").replace(path)
    return None


def _forget(told: dict[str, Any], kept: int) -> None:
    """All but the `kept` largest blocks lose their stacks."""
    blocks = sorted(_blocks(told), key=lambda block: -int(block.get("size", 0)))
    for block in blocks[kept:]:
        for name in ("frames", "history"):
            if block.get(name):
                block[name] = []


def _blocks(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for segment in told.get("segments", ()):
        segment.pop("frames", None)
        yield from segment.get("blocks", ())
