"""One run analyzed under its limits: in a process beside the worker, which is killed when the run takes too long or too much memory.

The worker may be a thread of `lfdoctor scan`, a dask worker or a ray actor; the process that analyzes is the same everywhere,
`doctor/fleet/scan/worker_process.py`: it takes one task after the other from its standard input and ends when that is closed. A run that
hangs, fills memory or crashes the interpreter costs that process only, and a worker that is killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from doctor.fleet.scan.records import Outcome, RunRecord, Task, failed_to
from doctor.support.decoding import unpack
from doctor.support.optional import need
from doctor.support.subprocesses import receive, send, start

RETRIES = 4
"""A run whose analyst died without a word (killed by somebody, or crashed) is tried again so often."""
READY = b"ready"
"""The first message of an analyst."""
POLL_SECONDS = 0.05
_analysts = threading.local()


def work(tasks: list[bytes]) -> list[tuple[str, bytes]]:
    """Path and record of some tasks (all msgpack); the record is null for what turned out to be no run. Never raises."""
    decoded = [unpack(task, Task) for task in tasks]
    return [(task.found.path, msgspec.msgpack.encode(_one(task))) for task in decoded]


def _one(task: Task) -> RunRecord | None:
    broken = TaskFailure("crashed", "")
    if not task.found.paths:
        return failed_to(task.found, "unreadable", "; ".join(task.found.problems) or "nothing in it can be read")
    for _ in range(1 + RETRIES):
        analyst: Analyst | None = getattr(_analysts, "mine", None)
        if analyst is None:
            analyst = _analysts.mine = Analyst()
        answer = analyst.ask(task)
        if isinstance(answer, bytes):
            return unpack(answer, RunRecord | None)
        analyst.end()
        _analysts.mine = None
        broken = answer
        if answer.outcome != "crashed":
            break
    return failed_to(task.found, broken.outcome, broken.error)


class TaskFailure(msgspec.Struct, frozen=True):
    """Why an analyst did not answer."""

    outcome: Outcome
    error: str


class Analyst:
    """A process that analyzes runs, one at a time. It starts with the first task (0.5 s) and serves until it is ended or dies."""

    def __init__(self) -> None:
        self.process = start("doctor.fleet.scan.worker_process")
        self.memory = _reader_of_memory(self.process.pid)
        self.ready = False

    def ask(self, task: Task) -> bytes | TaskFailure:
        """The answer, or what became of the process: killed for time or memory, or gone by itself."""
        if not self.ready:  # loading the rules counts against no run
            self.ready = receive(_open(self.process.stdout)) == READY
        over: list[TaskFailure] = []
        done = threading.Event()
        guard = threading.Thread(target=self._guard, args=(task, done, over), daemon=True)
        guard.start()
        answer = None
        with contextlib.suppress(OSError):
            answer = self._exchange(msgspec.msgpack.encode(task))
        done.set()
        guard.join()
        if answer is not None:
            return answer
        return over[0] if over else TaskFailure("crashed", f"the process that analyzed it ended with {self.process.wait()}")

    def _exchange(self, task: bytes) -> bytes | None:
        send(_open(self.process.stdin), task)
        return receive(_open(self.process.stdout))

    def _guard(self, task: Task, done: threading.Event, over: list[TaskFailure]) -> None:
        limits = task.limits
        end = time.monotonic() + limits.seconds
        while not done.wait(POLL_SECONDS):
            if time.monotonic() > end:
                over.append(TaskFailure("too_slow", f"cut off after {limits.seconds:g} s"))
            elif self.memory() > limits.memory_gib * 2**30:
                over.append(TaskFailure("too_large", f"cut off at {limits.memory_gib:g} GiB of memory"))
            if over:
                self.process.kill()
                return

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _open(pipe).close()
        self.process.wait()

    def __del__(self) -> None:
        """The thread or worker that held it is gone."""
        with contextlib.suppress(Exception):
            self.end()


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("no pipe")
    return pipe


def _reader_of_memory(pid: int) -> Any:
    """A function that tells the resident bytes of a process: from /proc, else by psutil, else always 0 (no limit on memory there)."""
    statm = Path(f"/proc/{pid}/statm")
    if statm.exists():
        page = os.sysconf("SC_PAGE_SIZE")

        def from_proc() -> int:
            try:
                return int(statm.read_bytes().split()[1]) * page
            except (OSError, IndexError):
                return 0

        return from_proc
    try:
        psutil = need("psutil", "gpu")
        process = psutil.Process(pid)
    except Exception:  # not installed, or the process is gone: its end is noticed elsewhere
        return lambda: 0

    def from_psutil() -> int:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0

    return from_psutil
