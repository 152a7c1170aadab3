"""`uncaught_exception`: any traceback of a run that did not complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from doctor.core.events import Crash, Event, Frame, Where
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

MAX_KINDS = 16
"""Different exceptions kept, and matches kept of each; later ones are dropped, as the first are nearest to the cause."""


class UncaughtException(DetectorBase):
    """`ignore`: regular expression on names of exceptions that repeat another (the launcher's) or are the user's wish (Ctrl-C).

    Only the first exception of a chain counts. In a completed run every exception was caught, so there is no match; but if a process of
    it ended in failure, those after the training completed were not.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Crash,)
    needs: tuple[str, ...] = ("text",)
    facts: tuple[str, ...] = ("exception", "message", "function", "file", "phase")

    def __init__(self, ignore: str = r"^$") -> None:
        self.ignore = re.compile(ignore)
        self.kept: dict[str, list[Match]] = {}

    def feed(self, event: Crash, run: Run) -> Iterator[Match]:
        key = f"{event.exception} {event.message[:80]}"
        known = self.kept.get(key)
        if event.chain or self.ignore.search(event.exception) or (known is None and len(self.kept) >= MAX_KINDS):
            return QUIET
        if known is None or len(known) < MAX_KINDS:
            self.kept.setdefault(key, []).append(_match(event, key))
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        failed = any(end.code or end.signal for end in run.ends)
        done = run.fact_where.get("run.completed")
        for matches in self.kept.values():
            yield from (match for match in matches if not run.completed or (failed and _is_later(match.where, done)))


def _is_later(place: Where, done: Where | None) -> bool:
    """Whether a line comes after the training's last one; of lines in another file that is not known."""
    return done is None or place.file != done.file or place.line is None or done.line is None or place.line > done.line


def _match(event: Crash, key: str) -> Match:
    place = _user_frame(event.frames)
    facts = {"exception": event.exception, "message": event.message.partition("\n")[0][:300]} if event.exception else {}
    if place:
        facts |= {"function": place.function, "file": place.file}
    if event.phase:
        facts["phase"] = event.phase
    evidence = (Evidence(event.where, event.text[:2000]),)
    return Match(evidence=evidence, facts=facts, key=key, rank=event.rank, attempt=event.attempt, time=event.time)


def _user_frame(frames: tuple[Frame, ...]) -> Frame | None:
    """The innermost frame outside installed libraries; the innermost of all if there is none."""
    own = [frame for frame in frames if "site-packages" not in frame.file and not frame.file.startswith("<")]
    return own[-1] if own else frames[-1] if frames else None
