"""Finds what anybody could want in a console's blocks: by the literals, and where many of the rules' stand in it by their expressions."""

from __future__ import annotations

from typing import Literal, NamedTuple

from doctor.readers.console.line_patterns import line_patterns
from doctor.readers.console.scan import Found, Scan, is_utf8, locate_lines, scanner
from doctor.support.literal_search import LinePatterns

MANY = 1_000
"""So many finds of rules' literals there may be before the expressions take over."""


class Wanted(NamedTuple):
    """What is looked for: `structure` in any case, `literals` for the rules, which `narrower` says more narrowly."""

    structure: tuple[str, ...]
    literals: tuple[str, ...]
    narrower: LinePatterns | None = None


How = Literal["literals", "literals!", "expressions"]


class State(NamedTuple):
    """How far a finder is: finds of rules' literals so far, and what it looks with (`literals!`: the log is none for expressions)."""

    finds: int = 0
    how: How = "literals"


class Finder:
    """Takes block after block; what it gives depends on the blocks alone, wherever they are looked at."""

    def __init__(self, wanted: Wanted, state: State, scan: Scan, count: list[int]) -> None:
        self._wanted, self._count, self._scan = wanted, count, scan
        self._how: How = state.how

    @classmethod
    def made(cls, wanted: Wanted, state: State) -> Finder | None:
        """None where there is no engine for it."""
        count = [state.finds]
        scan = line_patterns(wanted.narrower) if state.how == "expressions" and wanted.narrower else None
        scan = scan or scanner(wanted.structure, wanted.literals, count)
        return None if scan is None else cls(wanted, state, scan, count)

    @property
    def state(self) -> State:
        """From here another finder can go on."""
        return State(self._count[0], self._how)

    def scan(self, block: bytes) -> Found:
        """Everything found in the next block."""
        if self._how == "literals" and self._count[0] > MANY and self._wanted.narrower is not None:
            narrow = line_patterns(self._wanted.narrower) if is_utf8(block) else None
            self._how = "literals!" if narrow is None else "expressions"
            self._scan = narrow or self._scan
        return locate_lines(block, self._scan(block))
