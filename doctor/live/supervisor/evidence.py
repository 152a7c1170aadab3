"""Who killed the training: the container's counter of memory kills and the kernel's log, before and after."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from doctor.live.trainer.sampler import cgroup_folder

_KILL = re.compile(r"(?:Out of memory|Memory cgroup out of memory|oom-kill|Killed process).*")
MAX_RECORDS, MAX_LINES = 100_000, 20
"""Kernel messages that are read, and kills that are quoted."""


class KillEvidence:
    """Create it before the child starts; `lines()` afterwards returns what the system says of kills since then."""

    def __init__(self) -> None:
        self._folder = cgroup_folder()
        self._before = self._kills()
        self._kernel = _kernel_log()

    def lines(self) -> list[str]:
        """The kernel's own messages if it lets us read them; empty if nothing is known."""
        out = []
        now = self._kills()
        if self._before is not None and now is not None and now > self._before:
            out.append(f"Memory cgroup out of memory: memory.events oom_kill went from {self._before} to {now} during the run")
        return [*out, *self._messages()]

    def _kills(self) -> int | None:
        try:
            text = (self._folder / "memory.events").read_text() if self._folder else _version_1().read_text()
        except OSError:
            return None
        found = re.search(r"^oom_kill (\d+)", text, re.M)
        return int(found[1]) if found else None

    def _messages(self) -> list[str]:
        if self._kernel is None:
            return []
        out: list[str] = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(MAX_RECORDS):
                try:
                    record = os.read(self._kernel, 8192)
                except BrokenPipeError:  # records were overwritten: the next read continues after them
                    continue
                except OSError:
                    break
                if not record:
                    break
                message = record.decode("utf-8", "replace").partition(";")[2].split("\n")[0]
                if (found := _KILL.search(message)) and len(out) < MAX_LINES:
                    out.append(found[0][:500])
        os.close(self._kernel)
        self._kernel = None
        return out


def _version_1() -> Path:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    inside = next((line.rpartition(":")[2] for line in lines if ":memory:" in line), "/")
    return Path(f"/sys/fs/cgroup/memory{inside}/memory.oom_control")


def _kernel_log() -> int | None:
    """A descriptor for the kernel's messages from now on; None if we may not read them."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        return None
    return fd
