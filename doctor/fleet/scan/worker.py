"""Analyzes runs under limits, each in a separate process that is killed when a run takes too long or too much memory.

The worker may be a thread of `lfdoctor scan`, a dask worker or a ray actor. The process is `doctor/fleet/scan/worker_process.py` in all
cases: it reads tasks from standard input and ends when that is closed, so a killed worker leaves nothing behind. A run that hangs, fills
the memory or crashes the interpreter costs that process only.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from doctor.fleet.scan.records import Outcome, RunRecord, ScanTask, failed_to
from doctor.support.decoding import unpack
from doctor.support.optional import need
from doctor.support.subprocesses import receive, send, start

RETRIES = 4
"""Further tries for a run whose process died by itself (killed from outside, or crashed)."""
READY = b"ready"
"""The first message of a worker process."""
POLL_SECONDS = 0.05
"""Between two looks at a process's time and memory."""
_of_thread = threading.local()


def work(tasks: list[bytes]) -> list[tuple[str, bytes]]:
    """Path and record of each task (all msgpack); the record is null for what is no run. Never raises."""
    decoded = [unpack(task, ScanTask) for task in tasks]
    return [(task.found.path, msgspec.msgpack.encode(_analyze(task))) for task in decoded]


def _analyze(task: ScanTask) -> RunRecord | None:
    broken = TaskFailure("crashed", "")
    if not task.found.paths:
        return failed_to(task.found, "unreadable", "; ".join(task.found.problems) or "nothing in it can be read")
    for _ in range(1 + RETRIES):
        process: WorkerProcess | None = getattr(_of_thread, "process", None)
        if process is None:
            process = _of_thread.process = WorkerProcess()
        answer = process.ask(task)
        if isinstance(answer, bytes):
            return unpack(answer, RunRecord | None)
        process.end()
        _of_thread.process = None
        broken = answer
        if answer.outcome != "crashed":
            break
    return failed_to(task.found, broken.outcome, broken.error)


class TaskFailure(msgspec.Struct, frozen=True):
    """Why a worker process did not answer."""

    outcome: Outcome
    error: str


class WorkerProcess:
    """A process that analyzes runs, one at a time, until it is ended or dies. Starting takes 0.5 s."""

    def __init__(self) -> None:
        self.process = start("doctor.fleet.scan.worker_process")
        self.memory = _memory_reader(self.process.pid)
        self.ready = False

    def ask(self, task: ScanTask) -> bytes | TaskFailure:
        """The answer, or why there is none: killed for time or memory, or died by itself."""
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

    def _guard(self, task: ScanTask, done: threading.Event, over: list[TaskFailure]) -> None:
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
        """End the process."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _open(pipe).close()
        self.process.wait()

    def __del__(self) -> None:
        """The thread or worker that owned it is gone."""
        with contextlib.suppress(Exception):
            self.end()


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("no pipe")
    return pipe


def _memory_reader(pid: int) -> Any:
    """A function that returns the resident bytes of a process: from /proc, else from psutil, else always 0 (no memory limit then)."""
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
