"""The processes below another one: torchrun starts its ranks in sessions of their own, which a signal to the group does not reach."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Every living descendant of a process, parents before children (Linux; elsewhere empty)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            parent = int(entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    out, queue = [], [pid]
    while queue:
        found = children.pop(queue.pop(0), [])
        out += found
        queue += found
    return out


def end_group(pid: int, number: int) -> None:
    """Sends a signal to the process group that `pid` leads; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def kill_tree(pid: int) -> None:
    """Ends a process, its group and everything below it, at once: ranks in their own sessions would keep cards and ports otherwise."""
    ranks = descendants(pid)
    end_group(pid, signal.SIGKILL)
    for one in ranks:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)
