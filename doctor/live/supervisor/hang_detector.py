"""Silence: a training that says nothing and trains no step is asked where its ranks stand; unattended, it is ended as hung."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import Event
from doctor.diagnosis.engine import Engine
from doctor.live.trainer import stacks
from doctor.live.trainer.monitor import alert
from doctor.readers.base import File, Source
from doctor.readers.discovery import natural_sort_key
from doctor.readers.stacks import Stacks
from doctor.rulebook import loader
from doctor.support.process_tree import descendants, end_group, kill_tree
from doctor.words import catalogue

SILENCE_BEFORE_DUMP_SECONDS = 300.0
"""As long as the callback itself waits before it calls a training silent."""
MAX_STACK_DUMPS = 3
"""So often one silence is asked about: after ASK_SECONDS, twice and four times that."""
RETRY = 30.0
"""Where nobody listens yet, it is tried again after so many seconds."""
TERMINATE_GRACE_SECONDS = 60.0
"""A hung training that was asked to end is killed so many seconds later; torchrun gives its ranks 30."""
_TAIL = 1 << 16
_LISTENS = re.compile(rb"lfdoctor listens: rank (\d{1,9}) pid (\d{1,9}) signal (\d{1,2}) thread 0x([0-9a-f]{1,16})")


class Rank(msgspec.Struct, frozen=True):
    """A process that writes its stacks to `path` when it gets `signal`."""

    rank: int
    pid: int
    signal: int
    thread: int
    path: Path


class HangDetector:
    """Watches the child `pid` from a thread of its own while the `with` lasts; `heard()` tells it of output.

    After `ask` seconds without output or step (0: never) the ranks are asked for their stacks, and `tell` gets what those say; after `end`
    seconds the child is ended, and `said` holds the words for the report. An error of its own ends the watch, never the child.
    """

    def __init__(self, pid: int, folder: Path, *, ask: float, end: float | None, tell: Callable[[str], None]) -> None:
        self.said: list[str] = []
        self._pid, self._folder, self._ask, self._end, self._tell = pid, folder, ask, end, tell
        self._heard = time.monotonic()
        self._asked, self._again, self._ending = 0, 0.0, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lfdoctor-silence", daemon=True)

    def __enter__(self) -> HangDetector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(1)

    def heard(self) -> None:
        """The training has said something."""
        self._heard = time.monotonic()

    def _watch(self) -> None:
        try:
            while not self._done.wait(0.2):
                self._look(time.monotonic())
        except Exception as error:
            self._tell(_say("hang_watch_ended", error=f"{type(error).__name__}: {error}"))

    def _look(self, now: float) -> None:
        if self._ending:
            if now > self._ending:
                self._ending = float("inf")
                kill_tree(self._pid)
            return
        quiet = now - self._heard
        limits = [one for one in (self._ask, self._end or 0) if one > 0]
        if not limits or quiet < min(limits):
            self._asked = 0
            return
        quiet = min(quiet, _since_last_step(self._folder))
        if self._end is not None and quiet >= self._end:
            self._question(quiet)
            self.said.append(_say("hang_ended", seconds=round(quiet)))
            self._ending = time.monotonic() + TERMINATE_GRACE_SECONDS
            end_group(self._pid, signal.SIGTERM)
        elif 0 < self._ask * 2**self._asked <= quiet and self._asked < MAX_STACK_DUMPS and now >= self._again:
            self._asked += self._question(quiet)
            self._again = now + min(self._ask, RETRY)

    def _question(self, quiet: float) -> bool:
        """Asks every rank of this machine that listens (whether there is one); tells the verdict and where each stands."""
        ranks = list(listening(self._folder, self._pid))
        if not ranks or _has_ended(self._folder):
            return False
        step = _last_step(self._folder)
        for rank in ranks:
            _ask(rank, step, quiet)
        files = sorted({rank.path for rank in ranks})
        facts = [event for path in files for event in Stacks().configs(File(path, path.name, Source(str(path), "stacks", 0)))]
        for line in verdict(facts) or [_say("hang_stacks", seconds=round(quiet), folder=self._folder)]:
            self._tell(line)
        return True


def _say(name: str, /, **values: object) -> str:
    return catalogue.say(f"live.{name}", catalogue.user_language(), **values)


def verdict(facts: list[Event]) -> list[str]:
    """What the rules say of the ranks' stacks, and where each rank stands."""
    engine = Engine(rule for rule in loader.load().rules if rule.detector == "standstill")
    for event in facts:
        engine.feed(event)
    out = []
    for finding in engine.findings():
        out.append(alert(finding))
        out += [f"  {piece.text}" for piece in finding.evidence]
    return out


def listening(folder: Path, pid: int) -> Iterator[Rank]:
    """The ranks below `pid` that can be asked. A process without a handler would die of the signal, so the kernel's word counts."""
    ours = {pid, *descendants(pid)}
    found: dict[int, Rank] = {}
    for path in sorted(folder.glob("lfdoctor-stacks-rank*.txt"), key=lambda path: natural_sort_key(path.name)):
        with contextlib.suppress(OSError):
            for told in _LISTENS.finditer(path.read_bytes()):
                rank, process, number, thread = int(told[1]), int(told[2]), int(told[3]), int(told[4], 16)
                found[process] = Rank(rank, process, number, thread, path)
    for one in found.values():  # a process that learned its rank late listens under that one
        with contextlib.suppress(OSError):
            if one.pid in ours and one.signal in stacks.caught(one.pid) and one.path.stat().st_size < stacks.LIMIT:
                yield one


def _ask(rank: Rank, step: int, quiet: float) -> None:
    """One rank's stacks into its file; waits three seconds at most for them."""
    with contextlib.suppress(OSError):
        with rank.path.open("ab") as file:
            file.write(stacks.asked(rank.rank, rank.pid, step, quiet, rank.thread))
        before = size = rank.path.stat().st_size
        os.kill(rank.pid, rank.signal)
        for _ in range(30):
            time.sleep(0.1)
            last, size = size, rank.path.stat().st_size
            if size > before and size == last:
                return


def _since_last_step(folder: Path) -> float:
    """Seconds since a journal noted a step; endless where none did. Samples are no sign of life: of a hung training they still come."""
    steps = [step for path in folder.glob("lfdoctor*.jsonl") for step in _steps(path)]
    times = [step["time"] for step in steps if isinstance(step.get("time"), int | float)]
    return max(0.0, time.time() - max(times)) if times else float("inf")


def _has_ended(folder: Path) -> bool:
    """Whether the training has reached its end: what follows, saving or sending the model somewhere, may be silent."""
    with contextlib.suppress(OSError):
        return b'"name":"run.completed"' in _tail(folder / "lfdoctor.jsonl")
    return False


def _last_step(folder: Path) -> int:
    found = [step["step"] for path in folder.glob("lfdoctor*.jsonl") for step in _steps(path) if type(step.get("step")) is int]
    return max(found, default=0)


def _steps(path: Path) -> list[dict[str, Any]]:
    """The last step noted in a journal's newest bytes, or nothing."""
    with contextlib.suppress(OSError, ValueError):
        lines = [line for line in _tail(path).split(b"\n") if line.startswith(b'{"type":"Step"') and line.endswith(b"}")]
        return [msgspec.json.decode(lines[-1], type=dict[str, Any])] if lines else []
    return []


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()
