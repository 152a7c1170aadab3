"""Hangs: after a long silence the ranks are asked for their stacks; an unattended training is then ended."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from doctor.core.events import Event
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.tools import Tools
from doctor.live.supervisor import patience
from doctor.live.supervisor.patience import Patience
from doctor.live.supervisor.stack_request import ask, listening
from doctor.live.trainer.monitor import alert
from doctor.live.trainer.step_timer import LEAST_SECONDS
from doctor.readers.file import File, Source
from doctor.readers.stacks import Stacks
from doctor.support.files import end_of_file
from doctor.support.process_tree import end_group, kill_tree
from doctor.words import catalogue

MAX_STACK_DUMPS = 3
"""Per hang: after 1x, 2x and 4x the limit."""
RETRY_SECONDS = 30.0
"""Until the next try if no rank could be asked."""
TERMINATE_GRACE_SECONDS = 60.0
"""SIGTERM to SIGKILL; torchrun gives its ranks 30 s."""
LOOK_SECONDS = 1.0
"""Between two looks into the journals of a training that prints nothing."""
HUNG_SECONDS = 1800.0
"""Silence after which an unattended run is ended, at least. LLaMA-Factory's ddp_timeout is 5 years (180000000 s), so nothing else ends
it. 30 minutes are NCCL's own default timeout times three."""
HUNG_FACTOR = 6.0
"""The same in units of the silence after which the ranks are asked: who expects longer silences moves both."""


def hung_after(asked_after: float | None) -> float | None:
    """Seconds of silence after which an unattended run is ended, for `--silence` seconds; None (never) for 0. Never below HUNG_SECONDS."""
    if asked_after is None:
        return HUNG_SECONDS
    return max(HUNG_SECONDS, HUNG_FACTOR * asked_after) if asked_after > 0 else None


class HangDetector:
    """Watches the child `pid` on a thread of its own while the `with` lasts. Call `on_output` for every output.

    Silence and its limit are those of Patience. After `dump_after` seconds (None: as learnt from the run; 0: never) the ranks are asked
    for their stacks and `report` gets what those say. After `kill_after` seconds (None: never; the default of healing, HUNG_SECONDS, is
    moved by a longer limit that was learnt) the child is ended, and `summary` holds the sentence for the report. An error in here ends
    the watch, never the child.
    """

    def __init__(
        self, pid: int, folder: Path, *, dump_after: float | None, kill_after: float | None, report: Callable[[str], None]
    ) -> None:
        self.summary: list[str] = []
        self._pid, self._folder, self._report = pid, folder, report
        self._dump_after, self._kill_after = dump_after, kill_after
        self._patience = Patience(pid, folder, dump_after)
        self._dumps, self._next_dump, self._next_look, self._kill_at = 0, 0.0, 0.0, 0.0
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
        self._patience.on_output()

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
        least = min((limit for limit in (self._dump_after, self._kill_after) if limit), default=LEAST_SECONDS)
        if (self._dump_after == 0 and self._kill_after is None) or self._patience.since_output(now) < least / 2:
            self._dumps = 0
            return
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        limit, silence = self._patience.limit(), self._patience.silence(now)
        if self._kill_after is not None and silence >= self._ended_after(self._kill_after, limit):
            self._end(silence)
        elif 0 < limit * 2**self._dumps <= silence and self._dumps < MAX_STACK_DUMPS and now >= self._next_dump:
            self._dumps += self._dump(silence)
            self._next_dump = now + min(limit, RETRY_SECONDS)
        elif silence < limit:
            self._dumps = 0

    def _ended_after(self, kill_after: float, limit: float) -> float:
        learnt = self._dump_after is None and kill_after >= HUNG_SECONDS
        return max(kill_after, HUNG_FACTOR * limit) if learnt else kill_after

    def _end(self, silence: float) -> None:
        self._dump(silence)
        # rules/environment/ended-as-hung.yaml
        self.summary.append(f"no output and no step for {silence:.0f} s: ended by lfdoctor as hung")
        self._kill_at = time.monotonic() + TERMINATE_GRACE_SECONDS
        end_group(self._pid, signal.SIGTERM)

    def _dump(self, silence: float) -> bool:
        """Ask every listening rank of this machine for its stacks and report the verdict; whether there was one."""
        ranks = list(listening(self._folder, self._pid))
        if not ranks or _has_ended(self._folder):
            return False
        ask(ranks, _last_step(self._folder), silence)
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


def _has_ended(folder: Path) -> bool:
    """Whether the training has reached its end; saving or uploading the model afterwards may be silent."""
    with contextlib.suppress(OSError):
        return b'"name":"run.completed"' in end_of_file(folder / "lfdoctor.jsonl", patience.TAIL)
    return False


def _last_step(folder: Path) -> int:
    events = [patience.last_event(path, patience.SIGNS_OF_LIFE) for path in folder.glob("lfdoctor*.jsonl")]
    return max((event["step"] for event in events if event is not None and type(event.get("step")) is int), default=0)
