"""The recorder: accepts events on the training thread; writes, samples and monitors on a thread of its own.

Standard library only: it works in any training environment, whatever is installed there.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doctor.live.trainer.journal import JournalWriter, encode, name_for
from doctor.version import __version__

MAX_WAITING = 20_000
"""Events that wait for the writer; if the disk does not answer, the oldest are dropped."""
PERIOD = 0.5
"""Seconds between two writes: the most that a SIGKILL loses."""
HEADERS = ("Session", "Given", "ConfigSeen", "Fact")
"""Types of events that are repeated in every rotated file if they come before the first step."""
SAMPLE_SECONDS, SAMPLES_AT_FULL_RATE, MAX_SAMPLE_SECONDS = 1.0, 600, 30.0
"""A sample every second for the first 600, then every elapsed/600 seconds, at most 30 apart: 600 samples resolve any stretch as
long as everything before it."""

Event = dict[str, Any]
Listener = Callable[[bytes], None]


class Recorder:
    """`put` costs its caller an append to a deque: it never blocks, never raises.

    `folder` may be given later; until then events wait. `sample` returns a reading of the machine (or nothing), `listeners` see each
    written line; both run on the recorder's thread. After its first error the recorder logs it and does nothing more; a listener that
    fails is logged and removed.
    """

    def __init__(self, folder: Path | None, rank: int, *, sample: Callable[[], Event | None] | None = None) -> None:
        self.rank, self.began = rank, time.time()
        self.dead = False
        self.listeners: list[Listener] = []
        self._sample = sample
        self._journal = JournalWriter(folder / name_for(rank)) if folder else None
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self._wake, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._closing = False
        self._begins = True
        self._pid = os.getpid()
        self._next_sample = time.monotonic()
        self._begun = time.monotonic()
        self._thread: threading.Thread | None = None
        session = {"version": 1, "doctor": __version__, "pid": self._pid, "host": socket.gethostname(), "world": _world()}
        self.put({"type": "Session", "time": self.began, "rank": rank, **session})

    def start(self, folder: Path | None = None) -> None:
        """Begin to write (into `folder`, if none is known yet). Once only."""
        if self._journal is None and folder is not None:
            self._journal = JournalWriter(folder / name_for(self.rank))
        if self._thread is None and self._journal is not None:
            self._thread = threading.Thread(target=self._run, name="lfdoctor", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def settle(self, rank: int) -> None:
        """Set a rank that was not known when the process began (Ray sets it later); ignored once writing has begun."""
        if self._thread is not None or rank == self.rank:
            return
        self.rank = rank
        if self._journal is not None:
            self._journal = JournalWriter(self._journal.path.with_name(name_for(rank)))
        for event in self._waiting:
            if "rank" in event:
                event["rank"] = rank

    def put(self, event: Event) -> None:
        """Queue an event; it is written within PERIOD."""
        if not self.dead:
            self._waiting.append(event)

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait at most `timeout` seconds until everything queued is written; whether it is."""
        if self._thread is None or self.dead or os.getpid() != self._pid:
            return False
        self._idle.clear()
        self._wake.set()
        return self._idle.wait(timeout) and not self.dead

    def close(self) -> None:
        """The last write at the process's end."""
        self._closing = True
        self.flush()

    def fail(self, error: BaseException) -> None:
        """Switch the recorder off; logged once."""
        if self.dead:
            return
        self.dead = True
        self._waiting.clear()
        self._idle.set()
        log_stderr(f"switched off after {type(error).__name__}: {error}; the training goes on")

    def _run(self) -> None:
        try:
            while not self.dead:
                self._wake.wait(PERIOD)
                flush_requested = self._wake.is_set()
                self._wake.clear()
                self._drain()
                if flush_requested:
                    self._idle.set()
                if not self._closing and not self.dead:
                    self._take_sample()
        except BaseException as error:  # whatever happens here must not reach the training
            self.fail(error)

    def _drain(self) -> None:
        journal = self._journal
        if journal is None:
            return
        events = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if self._begins and not journal.fresh():
            events = [event for event in events if not event.get("history")]  # already in this journal
        lines = [encode(event) for event in events]
        if self._begins:
            journal.header([line for line, event in zip(lines, events, strict=True) if event["type"] in HEADERS])
            self._begins = all(event["type"] in HEADERS for event in events)
        journal.write(lines)
        for listener in list(self.listeners):
            try:
                for line in lines:
                    listener(line)
            except Exception as error:
                self.listeners.remove(listener)
                log_stderr(f"no more warnings: {type(error).__name__}: {error}; the training goes on")

    def _take_sample(self) -> None:
        now = time.monotonic()
        if self._sample is None or now < self._next_sample:
            return
        self._next_sample = now + sample_interval(now - self._begun)
        metrics = self._sample()
        if metrics:
            self.put({"type": "Sample", "time": time.time(), "seconds": round(now - self._begun, 1), "rank": self.rank, "metrics": metrics})


def sample_interval(elapsed: float) -> float:
    """Seconds to the next sample, `elapsed` seconds after the start."""
    return min(max(SAMPLE_SECONDS, elapsed / SAMPLES_AT_FULL_RATE), MAX_SAMPLE_SECONDS)


def run_with_timeout(work: Callable[[], Any], seconds: float) -> None:
    """Run `work`, which may wait for a disk, on a thread of its own and wait at most `seconds` for it; its errors are dropped."""

    def attempt() -> None:
        with contextlib.suppress(Exception):  # never into a training
            work()

    thread = threading.Thread(target=attempt, name="lfdoctor-timeout", daemon=True)
    thread.start()
    thread.join(seconds)


def log_stderr(text: str) -> None:
    """A line on standard error; a closed stream is ignored."""
    try:
        sys.stderr.write(f"\nlfdoctor: {text}\n" if sys.stderr.isatty() else f"lfdoctor: {text}\n")
        sys.stderr.flush()
    except Exception:  # noqa: S110  there is nowhere left to log
        pass


def rank_of_process() -> int:
    """The global rank from RANK (torchrun, accelerate, DeepSpeed, Ray); 0 for a single process."""
    value = os.environ.get("RANK", "")
    return int(value) if value.isdigit() else 0


def _world() -> int:
    value = os.environ.get("WORLD_SIZE", "")
    return int(value) if value.isdigit() else 1
