"""`stops_after`: the log ends at a certain point, without the lines that normally follow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from doctor.core.events import Crash, Event, LogLine, ProcessEnd
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match


class StopsAfter(DetectorBase):
    """Parameters:

    - `last`: regular expressions of the last line. Named groups become facts.
    - `contains`: literals; every line matching `last` contains at least one.
    - `later`: literals that show the run continued.

    A traceback or the end of a process explains the missing lines, so there is no match.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (LogLine, Crash, ProcessEnd)
    needs: tuple[str, ...] = ("text",)

    def __init__(self, last: Sequence[str], later: Sequence[str], contains: Sequence[str]) -> None:
        if any(isinstance(part, str) for part in (last, later, contains)) or not last or not contains:
            raise ValueError("last, later and contains are lists, and last and contains are not empty")
        self.last = tuple(map(re.compile, last))
        self.later = tuple(later)
        self.gate = tuple(contains)
        self.literals: tuple[str, ...] = (*contains, *later, "Traceback", "Error", "Killed")
        self.facts: tuple[str, ...] = tuple(sorted({name for pattern in self.last for name in pattern.groupindex}))
        self._open: Match | None = None

    def feed(self, event: LogLine | Crash | ProcessEnd, run: Run) -> Iterator[Match]:
        if not isinstance(event, LogLine):
            self._open = None
        elif found := self._point(event.text):
            facts: dict[str, Any] = {name: value for name, value in found.groupdict().items() if value is not None}
            self._open = Match(
                evidence=(Evidence(event.where, event.text[:2000]),), facts=facts, rank=event.rank, attempt=event.attempt, time=event.time
            )
        elif self._open is not None and any(word in event.text for word in self.literals if word not in self.gate):
            self._open = None
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        if self._open is not None and not run.completed and run.first_step is None:
            yield self._open

    def _point(self, text: str) -> re.Match[str] | None:
        if not any(word in text for word in self.gate):
            return None
        return next((found for pattern in self.last if (found := pattern.search(text))), None)
