"""Hangs: after a long silence the ranks are asked for their stacks; an unattended training is then ended."""

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
from doctor.diagnosis.tools import Tools
from doctor.live.trainer import stacks
from doctor.live.trainer.monitor import alert
from doctor.readers.file import File, Source
from doctor.readers.stacks import Stacks
from doctor.readers.walk import natural_sort_key
from doctor.support.decoding import json_decoder
from doctor.support.files import end_of_file
from doctor.support.process_tree import descendants, end_group, kill_tree
from doctor.words import catalogue

SILENCE_BEFORE_DUMP_SECONDS = 300.0
"""Same as the callback's own hang threshold."""
MAX_STACK_DUMPS = 3
"""Per hang: after 1x, 2x and 4x SILENCE_BEFORE_DUMP_SECONDS."""
RETRY_SECONDS = 30.0
"""Until the next try if no rank could be asked."""
TERMINATE_GRACE_SECONDS = 60.0
"""SIGTERM to SIGKILL; torchrun gives its ranks 30 s."""
BYTES_WRITTEN = 16 << 20
"""Written by the training's processes during a silence, this much means that they are saving. A hung training's recorder writes about
1 KB/s, 2 MB in half an hour."""
WRITE_CHECK_SECONDS = 5.0
"""Between two looks at those counters; a look reads all of /proc."""
_TAIL = 1 << 16
"""Bytes at a journal's end that hold the last step."""
_LISTENS = re.compile(rb"lfdoctor listens: rank (\d{1,9}) pid (\d{1,9}) signal (\d{1,2}) thread 0x([0-9a-f]{1,16})")
_SIGNS_OF_LIFE = (b'{"type":"Step"', b'{"type":"Alive"')
"""Journal lines that only a running training writes. Samples do not count: they come from a thread of their own."""


class RankProcess(msgspec.Struct, frozen=True):
    """A process that writes its stacks to `path` when it gets `signal`."""

    rank: int
    pid: int
    signal: int
    thread: int
    path: Path


class HangDetector:
    """Watches the child `pid` on a thread of its own while the `with` lasts. Call `on_output` for every output.

    Silence: no output, no step, no batch of an evaluation, and nothing written to files. After `dump_after` seconds of it (0: never)
    the ranks are asked for their stacks and `report` gets what those say. After `kill_after` seconds (None: never) the child is ended,
    and `summary` holds the sentence for the report. An error in here ends the watch, never the child.
    """

    def __init__(self, pid: int, folder: Path, *, dump_after: float, kill_after: float | None, report: Callable[[str], None]) -> None:
        self.summary: list[str] = []
        self._pid, self._folder, self._report = pid, folder, report
        self._dump_after, self._kill_after = dump_after, kill_after
        self._last_output = time.monotonic()
        self._bytes_written, self._next_write_check = 0, 0.0
        self._dumps, self._next_dump, self._kill_at = 0, 0.0, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lfdoctor-hang", daemon=True)

    def __enter__(self) -> HangDetector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(1)

    def on_output(self) -> None:
        """The training has written something."""
        self._last_output = time.monotonic()

    def _watch(self) -> None:
        try:
            while not self._done.wait(0.2):
                self._look(time.monotonic())
        except Exception as error:
            self._report(_say("hang_watch_ended", error=f"{type(error).__name__}: {error}"))

    def _look(self, now: float) -> None:
        if self._kill_at:
            if now > self._kill_at:
                self._kill_at = float("inf")
                kill_tree(self._pid)
            return
        silence = now - self._last_output
        limits = [limit for limit in (self._dump_after, self._kill_after or 0) if limit > 0]
        if not limits or silence < min(limits) / 2:
            self._dumps = 0
            return
        if now >= self._next_write_check:
            self._next_write_check = now + WRITE_CHECK_SECONDS
            if self._is_writing():
                self.on_output()
                return
        if silence < min(limits):
            return
        silence = min(silence, _since_sign_of_life(self._folder))
        if self._kill_after is not None and silence >= self._kill_after:
            self._dump(silence)
            self.summary.append(
                f"no output and no step for {silence:.0f} s: ended by lfdoctor as hung"
            )  # rules/environment/ended-as-hung.yaml
            self._kill_at = time.monotonic() + TERMINATE_GRACE_SECONDS
            end_group(self._pid, signal.SIGTERM)
        elif 0 < self._dump_after * 2**self._dumps <= silence and self._dumps < MAX_STACK_DUMPS and now >= self._next_dump:
            self._dumps += self._dump(silence)
            self._next_dump = now + min(self._dump_after, RETRY_SECONDS)

    def _is_writing(self) -> bool:
        """Whether the training's processes have written BYTES_WRITTEN since the last time this was true."""
        written = bytes_written([self._pid, *descendants(self._pid)])
        before, first = self._bytes_written, self._bytes_written == 0
        if first or written >= before + BYTES_WRITTEN or written < before:  # fewer: a process has ended
            self._bytes_written = written
        return not first and written >= before + BYTES_WRITTEN

    def _dump(self, silence: float) -> bool:
        """Ask every listening rank of this machine for its stacks and report the verdict; whether there was one."""
        ranks = list(listening(self._folder, self._pid))
        if not ranks or _has_ended(self._folder):
            return False
        step = _last_step(self._folder)
        for rank in ranks:
            _request_stacks(rank, step, silence)
        files = sorted({rank.path for rank in ranks})
        facts = [event for path in files for event in Stacks().configs(File(path, path.name, Source(str(path), "stacks", 0)))]
        for line in verdict(facts) or [_say("hang_stacks", seconds=round(silence), folder=self._folder)]:
            self._report(line)
        return True


def _say(name: str, /, **values: object) -> str:
    return catalogue.say(f"live.{name}", catalogue.user_language(), **values)


def verdict(facts: list[Event]) -> list[str]:
    """What the rules say of the ranks' stacks, and where each rank is; empty if a plugin cannot be loaded."""
    try:
        tools = Tools.load()
    except Exception:  # a plugin's code must not end the watch
        return []
    engine = Engine((rule for rule in tools.book.rules if rule.detector == "standstill"), tools.detectors)
    for event in facts:
        engine.feed(event)
    out = []
    for finding in engine.findings():
        out.append(alert(finding))
        out += [f"  {piece.text}" for piece in finding.evidence]
    return out


def listening(folder: Path, pid: int) -> Iterator[RankProcess]:
    """The ranks among the descendants of `pid` that can be asked. Only those with a handler: the signal would kill any other process."""
    ours = {pid, *descendants(pid)}
    found: dict[int, RankProcess] = {}
    for path in sorted(folder.glob("lfdoctor-stacks-rank*.txt"), key=lambda path: natural_sort_key(path.name)):
        with contextlib.suppress(OSError):
            for match in _LISTENS.finditer(path.read_bytes()):
                rank, process, number, thread = int(match[1]), int(match[2]), int(match[3]), int(match[4], 16)
                found[process] = RankProcess(rank, process, number, thread, path)  # a rank that was learned late replaces the first
    for rank_process in found.values():
        with contextlib.suppress(OSError):
            has_handler = rank_process.pid in ours and rank_process.signal in stacks.caught(rank_process.pid)
            if has_handler and rank_process.path.stat().st_size < stacks.LIMIT:
                yield rank_process


def _request_stacks(rank: RankProcess, step: int, silence: float) -> None:
    """Let one rank write its stacks to its file; waits at most three seconds for them."""
    with contextlib.suppress(OSError):
        with rank.path.open("ab") as file:
            file.write(stacks.header_line(rank.rank, rank.pid, step, silence, rank.thread))
        before = size = rank.path.stat().st_size
        os.kill(rank.pid, rank.signal)
        for _ in range(30):
            time.sleep(0.1)
            last, size = size, rank.path.stat().st_size
            if size > before and size == last:
                return


def bytes_written(pids: list[int]) -> int:
    """Bytes that these processes have written to anything so far (`wchar` of /proc/PID/io; 0 where there is none)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
            text = Path(f"/proc/{pid}/io").read_text(encoding="ascii", errors="replace")
            total += next(int(line[6:]) for line in text.splitlines() if line.startswith("wchar:"))
    return total


def _since_sign_of_life(folder: Path) -> float:
    """Seconds since a journal noted a step or a batch of an evaluation; infinite if none did."""
    times = [event["time"] for path in folder.glob("lfdoctor*.jsonl") for event in _last_events(path, _SIGNS_OF_LIFE) if _is_time(event)]
    return max(0.0, time.time() - max(times)) if times else float("inf")


def _is_time(event: dict[str, Any]) -> bool:
    return isinstance(event.get("time"), int | float)


def _has_ended(folder: Path) -> bool:
    """Whether the training has reached its end; saving or uploading the model afterwards may be silent."""
    with contextlib.suppress(OSError):
        return b'"name":"run.completed"' in end_of_file(folder / "lfdoctor.jsonl", _TAIL)
    return False


def _last_step(folder: Path) -> int:
    events = [event for path in folder.glob("lfdoctor*.jsonl") for event in _last_events(path, _SIGNS_OF_LIFE[:1])]
    return max((event["step"] for event in events if type(event.get("step")) is int), default=0)


_decode = json_decoder(dict[str, Any]).decode


def _last_events(path: Path, kinds: tuple[bytes, ...]) -> list[dict[str, Any]]:
    """The last event of these kinds in a journal's newest bytes, or nothing."""
    with contextlib.suppress(OSError, ValueError):
        lines = [line for line in end_of_file(path, _TAIL).split(b"\n") if line.startswith(kinds) and line.endswith(b"}")]
        return [_decode(lines[-1])] if lines else []
    return []
