"""`log_pattern`: a log line or an exception matches a regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import msgspec

from doctor.core.events import Crash, Event, LogLine
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match


class Compiled(NamedTuple):
    """A LogPattern's expressions, compiled."""

    any_of: tuple[re.Pattern[str], ...]
    none_of: tuple[re.Pattern[str], ...]
    exception: re.Pattern[str] | None
    frames: tuple[re.Pattern[str], ...]
    outside: tuple[re.Pattern[str], ...]


class Share(msgspec.Struct, frozen=True):
    """Parameter `share` of a LogPattern: the number in group `part` is at least `at_least` of that in group `of`."""

    part: str
    of: str
    at_least: float
    least_whole: float = 1.0

    def holds(self, found: re.Match[str]) -> bool:
        """Whether the condition holds. Both groups must contain numbers; wholes below `least_whole` never match."""
        whole, part = float(found[self.of]), float(found[self.part])
        return whole >= self.least_whole and part >= self.at_least * whole


_QUOTE = r"(?:[`']|(?<!\w)|(?!\w))"
"""A quote, or none where two characters of one word do not meet."""


def without_backticks(pattern: str) -> str:
    """The expression with every backtick outside a set optional or another quote: Markdown takes them away when a log is pasted.

    Where the quote is missing a word begins or ends: the expression never matches the rest of a longer word.
    """
    if "`" not in pattern:
        return pattern
    out, in_set, escaped = [], False, False
    for char in pattern:
        out.append(_QUOTE if char == "`" and not in_set else char)
        in_set = in_set if escaped else char == "[" or (in_set and char != "]")
        escaped = char == "\\" and not escaped
    return "".join(out)


_LONG = 12
"""Characters of a part of a literal that is telling enough to stand for the whole."""


def _forms(literal: str) -> tuple[str, ...]:
    """What stands in every pasted form of a literal: its longest part between backticks, else each of its forms."""
    if "`" not in literal:
        return (literal,)
    parts = literal.split("`")
    longest = max(parts, key=len)
    if len(longest) >= _LONG:
        return (longest,)
    forms = [parts[0]]
    for part in parts[1:]:
        forms = [f"{form}{mark}{part}" for form in forms for mark in ("`", "'", "")]
    return tuple(forms)


class LogPattern(DetectorBase):
    """Parameters (a backtick in an expression or literal also stands for another quote, or for none):

    - `any_of`: regular expressions, searched in the line or in `Exception: message` (may span lines). Named groups become facts.
    - `contains`: literals; every text that can match contains at least one. Used as a fast prefilter.
    - `none_of`: regular expressions that exclude a match in the same text.
    - `exception`: regular expression on the exception's name; restricts the match to tracebacks.
    - `frames`: regular expressions; one must match a frame (`file:function: code`). Restricts the match to tracebacks.
    - `outside`: regular expressions; none may match the innermost frame's file: what is raised there is another matter.
    - `phase`: phases in which a match is allowed (load, train, eval, save, ...).
    - `ascending`: named groups whose numbers must increase ([tokens, features]: fewer tokens than features).
    - `share`: {part: skipped, of: step, at_least: 0.8, least_whole: 20}: see `Share`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (LogLine, Crash)
    needs: tuple[str, ...] = ("text",)
    _compiled: Compiled | None = None
    _unmatched: str | None = None
    """The last text in which nothing was found: it comes again where a failure is printed thousands of times."""

    def __init__(
        self,
        any_of: Sequence[str],
        contains: Sequence[str],
        none_of: Sequence[str] = (),
        exception: str | None = None,
        frames: Sequence[str] = (),
        outside: Sequence[str] = (),
        phase: Sequence[str] = (),
        ascending: Sequence[str] = (),
        share: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(any_of, str) or isinstance(contains, str):
            raise ValueError("any_of and contains are lists")
        self.literals = tuple(dict.fromkeys(form for literal in contains for form in _forms(literal)))
        loose = tuple(map(without_backticks, any_of))
        self.sources = (loose, tuple(none_of), exception, tuple(frames), tuple(outside))
        self.tracebacks_only = exception is not None or bool(frames)
        self.phases = frozenset(phase)
        named = {name for pattern in any_of for name in re.findall(r"\(\?P<(\w+)>", pattern)}
        if not named.issuperset(ascending):
            raise ValueError("ascending names groups of any_of")
        self.share = Share(**share) if share else None
        if self.share and not named.issuperset((self.share.part, self.share.of)):
            raise ValueError("share names groups of any_of")
        self.ascending = tuple(ascending)
        self.facts = (*sorted(named), "phase", "exception")

    def compiled(self) -> Compiled:
        """The regular expressions, compiled on first use: compiling those of all rules at start takes about 0.1 s."""
        if self._compiled is None:
            any_of, none_of, exception, frames, outside = self.sources
            self._compiled = Compiled(
                any_of=tuple(map(re.compile, any_of)),
                none_of=tuple(map(re.compile, none_of)),
                exception=re.compile(exception) if exception else None,
                frames=tuple(map(re.compile, frames)),
                outside=tuple(map(re.compile, outside)),
            )
        return self._compiled

    def compile(self) -> None:
        self.compiled()

    def feed(self, event: LogLine | Crash, run: Run) -> Iterator[Match]:
        if self.phases and event.phase not in self.phases:
            return
        if isinstance(event, Crash):
            if not self._crash_fits(event):
                return
        elif self.tracebacks_only:
            return
        compiled, text = self.compiled(), event.text
        if text == self._unmatched:
            return
        for pattern in compiled.any_of:
            found = pattern.search(text)
            if (
                found
                and self._rises(found)
                and (self.share is None or self.share.holds(found))
                and not any(bad.search(text) for bad in compiled.none_of)
            ):
                yield self._match(event, found)
                return
        self._unmatched = text

    def _crash_fits(self, event: Crash) -> bool:
        compiled = self.compiled()
        if compiled.exception and not compiled.exception.search(event.exception):
            return False
        if event.frames and any(pattern.search(event.frames[-1].file) for pattern in compiled.outside):
            return False
        if not compiled.frames:
            return True
        places = [f"{frame.file}:{frame.function}: {frame.code}" for frame in event.frames]
        return any(pattern.search(place) for pattern in compiled.frames for place in places)

    def _rises(self, found: re.Match[str]) -> bool:
        texts = [found.groupdict().get(name) for name in self.ascending]
        numbers = [float(text) for text in texts if text]
        return len(numbers) == len(texts) and all(low < high for low, high in pairwise(numbers))

    def _match(self, event: LogLine | Crash, found: re.Match[str]) -> Match:
        facts: dict[str, Any] = {name: value for name, value in found.groupdict().items() if value is not None}
        if event.phase is not None:
            facts["phase"] = event.phase
        if isinstance(event, Crash):
            facts["exception"] = event.exception
        return Match(
            evidence=(Evidence(event.where, event.text[:2000]),), facts=facts, rank=event.rank, attempt=event.attempt, time=event.time
        )
