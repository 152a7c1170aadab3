"""Find and end descendant processes. torchrun starts ranks in their own sessions, which a signal to the process group misses."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """All living descendants of a process, parents before children. Linux only; empty elsewhere."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # the process has ended
            parent = int(entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    out, queue = [], [pid]
    while queue:
        found = children.pop(queue.pop(0), [])
        out += found
        queue += found
    return out


def end_group(pid: int, number: int) -> None:
    """Send a signal to the process group led by `pid`; no error if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def kill_tree(pid: int) -> None:
    """SIGKILL a process, its group and its descendants. Ranks in their own sessions would otherwise keep GPUs and ports."""
    ranks = descendants(pid)
    end_group(pid, signal.SIGKILL)
    for rank in ranks:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(rank, signal.SIGKILL)
