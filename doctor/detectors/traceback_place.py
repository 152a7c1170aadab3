"""`traceback`: an exception raised at a certain place in the code, whatever its message, even if the message is cut off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from doctor.core.events import Crash, Event
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match
from doctor.support.lazy_regex import lazy_compile


class TracebackPlace(DetectorBase):
    """Parameters:

    - `frames`: regular expressions; each must match a frame, written `file:function: code`.
    - `none_of`: regular expressions; none may match a frame or the exception's text.
    - `exception`: regular expression on `Exception: message`.
    - `cut_off`: true: only tracebacks without their last line (the exception); false: only complete ones; unset: both.

    Facts: `function` and `file` of the innermost frame, `exception`, `phase`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Crash,)
    needs: tuple[str, ...] = ("text",)
    facts: tuple[str, ...] = ("function", "file", "exception", "phase")

    def __init__(
        self, frames: Sequence[str], none_of: Sequence[str] = (), exception: str | None = None, cut_off: bool | None = None
    ) -> None:
        if isinstance(frames, str) or isinstance(none_of, str) or not frames:
            raise ValueError("frames and none_of are lists, and frames is not empty")
        self.frames = tuple(map(lazy_compile, frames))
        self.none_of = tuple(map(lazy_compile, none_of))
        self.exception = lazy_compile(exception) if exception else None
        self.cut_off = cut_off

    def feed(self, event: Crash, run: Run) -> Iterator[Match]:
        if self.cut_off is not None and self.cut_off is not (not event.exception):
            return
        places = [f"{frame.file}:{frame.function}: {frame.code}" for frame in event.frames]
        if not all(any(pattern.search(place) for place in places) for pattern in self.frames):
            return
        if self.exception and not self.exception.search(event.text):
            return
        if any(bad.search(text) for bad in self.none_of for text in (*places, event.text)):
            return
        yield self._match(event, places[-1])

    def _match(self, event: Crash, place: str) -> Match:
        innermost = event.frames[-1]
        facts: dict[str, Any] = {"function": innermost.function, "file": innermost.file, "exception": event.exception}
        if event.phase is not None:
            facts["phase"] = event.phase
        text = event.text or place
        return Match(evidence=(Evidence(event.where, text[:2000]),), facts=facts, rank=event.rank, attempt=event.attempt, time=event.time)
