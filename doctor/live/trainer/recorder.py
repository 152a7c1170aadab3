"""The recorder: takes events on the training thread, and writes, samples and judges them on a thread of its own.

Standard library only: it works inside any training environment, whatever is (not) installed there.
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

from doctor.live.trainer.journal import Journal, encode, name_for
from doctor.version import __version__

HELD = 20_000
"""So many events wait for the writer at most; on a disk that does not answer, the oldest are dropped."""
PERIOD = 0.5
"""Seconds between two writes: what a SIGKILL can cost."""
HEADERS = ("Session", "Given", "ConfigSeen", "Fact")
"""What comes before the first step is repeated in every rotated file."""

Event = dict[str, Any]
Listener = Callable[[bytes], None]


class Recorder:
    """`put` costs the caller an append to a deque: it never blocks, never raises.

    `folder` may be told later; until then events wait. `sample` gives a reading of the machine (or nothing), `listeners` see each written
    line; both run on the recorder's thread. After the first error of its own the recorder says so once and does nothing more; a listener
    that fails is told and not asked again.
    """

    def __init__(self, folder: Path | None, rank: int, *, sample: Callable[[], Event | None] | None = None) -> None:
        self.rank, self.began = rank, time.time()
        self.dead = False
        self.listeners: list[Listener] = []
        self._sample = sample
        self._journal = Journal(folder / name_for(rank)) if folder else None
        self._waiting: deque[Event] = deque(maxlen=HELD)
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
        """Begins to write (into `folder`, if none is known yet). Once only."""
        if self._journal is None and folder is not None:
            self._journal = Journal(folder / name_for(self.rank))
        if self._thread is None and self._journal is not None:
            self._thread = threading.Thread(target=self._run, name="lfdoctor", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def settle(self, rank: int) -> None:
        """The rank, where it was not known when the process began (Ray's workers hear of it later); too late once writing has begun."""
        if self._thread is not None or rank == self.rank:
            return
        self.rank = rank
        if self._journal is not None:
            self._journal = Journal(self._journal.path.with_name(name_for(rank)))
        for event in self._waiting:
            if "rank" in event:
                event["rank"] = rank

    def put(self, event: Event) -> None:
        """Notes an event; it is written within half a second."""
        if not self.dead:
            self._waiting.append(event)

    def flush(self, timeout: float = 2.0) -> bool:
        """Waits until what was put is written, `timeout` seconds at most; whether it is."""
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
        """Switches the recorder off, and says so once."""
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
                asked = self._wake.is_set()
                self._wake.clear()
                self._drain()
                if asked:
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
            events = [event for event in events if not event.get("history")]  # it stands there already
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
        # once a second in the first ten minutes, then ever more rarely: 600 samples tell enough of a stretch as long as all before
        self._next_sample = now + min(max(1.0, (now - self._begun) / 600), 30.0)
        metrics = self._sample()
        if metrics:
            self.put({"type": "Sample", "time": time.time(), "seconds": round(now - self._begun, 1), "rank": self.rank, "metrics": metrics})


def run_with_timeout(work: Callable[[], Any], seconds: float) -> None:
    """Does what may have to wait for a disk on a thread of its own, and waits so long for it at most; an error of it costs only that."""

    def attempt() -> None:
        with contextlib.suppress(Exception):  # never into a training
            work()

    thread = threading.Thread(target=attempt, name="lfdoctor-aside", daemon=True)
    thread.start()
    thread.join(seconds)


def log_stderr(text: str) -> None:
    """One line on standard error; a closed stream is no reason to fail."""
    try:
        sys.stderr.write(f"\nlfdoctor: {text}\n" if sys.stderr.isatty() else f"lfdoctor: {text}\n")
        sys.stderr.flush()
    except Exception:  # noqa: S110  nothing is left to tell it to
        pass


def rank_of_process() -> int:
    """The global rank as torchrun, accelerate, DeepSpeed and Ray tell it; 0 for a process of its own."""
    value = os.environ.get("RANK", "")
    return int(value) if value.isdigit() else 0


def _world() -> int:
    value = os.environ.get("WORLD_SIZE", "")
    return int(value) if value.isdigit() else 1
