"""How long a training has been silent, and how long it may be: learnt from the run itself."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec

from doctor.live.trainer.step_timer import LEAST_SECONDS
from doctor.support.decoding import json_decoder
from doctor.support.files import end_of_file
from doctor.support.process_tree import descendants

START_SECONDS = 45.0
"""Before the first step nothing is known of the run: loading, tokenizing and compiling are alive while they print, compute, read or
write. Own choice: what waits for a network mostly gives up within 30 s or says so; nothing in the lab's healthy trainings rested longer."""
BYTES_MOVED = 16 << 20
"""Written (before the first step also: read) by the training's processes during a silence, this much means that they are saving or
loading. A hung training's recorder writes about 1 KB/s, 2 MB in half an hour."""
BUSY = 0.1
"""Cores in use, of all processes together, that mean work before the first step. Processes that poll a lock or each other use 0.01."""
BUSY_OR_QUEUED = 0.5
"""Share of its time that one process runs or waits for a core: work on a machine that is crowded."""
WORK_CHECK_SECONDS = 2.0
"""Between two looks at those counters; a look reads all of /proc."""
TAIL = 1 << 16
"""Bytes at a journal's end that hold the last step."""
SIGNS_OF_LIFE = (b'{"type":"Step"', b'{"type":"Alive"')
"""Journal lines that only a running training writes. Samples do not count: they come from a thread of their own."""
_decode = json_decoder(dict[str, Any]).decode


class Patience:
    """`silence(now)` and `limit()` of the training `pid`, whose journals are in `folder`. Call `on_output` for every output.

    `fixed` seconds are the limit if they are given. Else, once a step was done, the longest `expected` that any rank has written with
    its last sign of life (see StepTimer); before, START_SECONDS.
    """

    def __init__(self, pid: int, folder: Path, fixed: float | None) -> None:
        self._folder, self._fixed = folder, fixed
        self._last_output = time.monotonic()
        self._work = Work(pid)

    def on_output(self) -> None:
        """The training has written something."""
        self._last_output = time.monotonic()

    def since_output(self, now: float) -> float:
        """Seconds without output; costs nothing."""
        return now - self._last_output

    def silence(self, now: float) -> float:
        """Seconds without output, a step, a batch of an evaluation or 16 MiB written; before the first step also without work."""
        signs = self._signs()
        self._work.look(now)
        since = [now - self._last_output, now - self._work.last_moved]
        since += [max(0.0, time.time() - sign["time"]) for sign in signs]
        return min(since if signs else [*since, now - self._work.last_busy])

    def limit(self) -> float:
        """Seconds of silence after which the ranks are asked."""
        if self._fixed is not None:
            return self._fixed
        signs = self._signs()
        if not signs:
            return START_SECONDS
        expected = (sign.get("expected", LEAST_SECONDS) for sign in signs)
        return max([LEAST_SECONDS, *(float(seconds) for seconds in expected if isinstance(seconds, int | float))])

    def _signs(self) -> list[dict[str, Any]]:
        """The last sign of life of each rank."""
        events = (last_event(path, SIGNS_OF_LIFE) for path in self._folder.glob("lfdoctor*.jsonl"))
        return [event for event in events if event is not None and isinstance(event.get("time"), int | float)]


class Work:
    """When the process `pid` and its descendants last computed or moved data, of looks at least WORK_CHECK_SECONDS apart."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.last_busy = self.last_moved = self._looked = time.monotonic()
        self._cores: dict[int, tuple[float, float]] = {}
        self._moved = self._written = 0

    def look(self, now: float) -> None:
        """Read the counters again, if it is time."""
        passed = now - self._looked
        if passed < WORK_CHECK_SECONDS:
            return
        self._looked = now
        pids = [self._pid, *descendants(self._pid)]
        cores = {pid: used for pid in pids if (used := _cores(pid)) is not None}
        before = [(used, self._cores[pid]) for pid, used in cores.items() if pid in self._cores]
        self._cores = cores
        computed = sum(new[0] - old[0] for new, old in before)
        queued = max((new[1] - old[1] for new, old in before), default=0.0)
        moved, written = _bytes(pids)
        self._moved, much = _grown(self._moved, moved)
        self._written, saves = _grown(self._written, written)
        if computed > BUSY * passed or queued > BUSY_OR_QUEUED * passed or much:
            self.last_busy = now
        if saves:
            self.last_moved = now


def _grown(before: int, after: int) -> tuple[int, bool]:
    """The mark that a counter is compared with from now on, and whether it has grown by BYTES_MOVED beyond the old one."""
    grown = after >= before + BYTES_MOVED
    return (after if grown or before == 0 or after < before else before), grown and before > 0  # fewer: a process has ended


def _cores(pid: int) -> tuple[float, float] | None:
    """Seconds that all threads of a process have computed, and seconds that its main thread has run or waited for a core."""
    with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        computed = sum(map(int, fields[11:15])) / 100  # utime, stime and those of children, in USER_HZ: 100 on every Linux
        queued = 0.0
        with contextlib.suppress(OSError):  # not in every kernel
            ran, waited = map(int, Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[:2])
            queued = (ran + waited) / 1e9
        return computed, queued
    return None


def _bytes(pids: list[int]) -> tuple[int, int]:
    """Bytes that these processes have read or written so far, and those written alone (/proc/PID/io; 0 where there is none)."""
    moved = written = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            text = Path(f"/proc/{pid}/io").read_text(encoding="ascii", errors="replace")
            counts = {name: int(value) for name, _, value in (line.partition(": ") for line in text.splitlines())}
            moved += counts["rchar"] + counts["wchar"] + counts["read_bytes"]
            written += counts["wchar"]
    return moved, written


def last_event(path: Path, kinds: tuple[bytes, ...]) -> dict[str, Any] | None:
    """The last event of these kinds in a journal's newest bytes."""
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        lines = [line for line in end_of_file(path, TAIL).split(b"\n") if line.startswith(kinds) and line.endswith(b"}")]
        return _decode(lines[-1]) if lines else None
    return None
