"""Finds the lines of a console that anybody may want: by literals first, and by whole expressions if many lines contain literals."""

from __future__ import annotations

from typing import NamedTuple

from doctor.readers.console.line_patterns import line_patterns
from doctor.readers.console.scan import Found, Scan, is_utf8, locate_lines, scanner
from doctor.support.literal_search import LinePatterns

MANY = 1_000
"""Finds of rules' literals after which expressions are compiled (0.5 s): an ordinary log of 100 MB stays below."""


class Wanted(NamedTuple):
    """What is searched for: `structure` in any case, and `literals` of rules, which `patterns` describe more precisely."""

    structure: tuple[str, ...]
    literals: tuple[str, ...]
    patterns: LinePatterns | None = None


class Finder:
    """Scans one block after another. The result depends on the blocks alone."""

    def __init__(self, wanted: Wanted, scan: Scan, count: list[int]) -> None:
        self._wanted, self._scan, self._count = wanted, scan, count
        self._decided = wanted.patterns is None

    @classmethod
    def create(cls, wanted: Wanted, finds: int) -> Finder | None:
        """A finder; None without Hyperscan. `finds` is the number of lines with rules' literals before its first block."""
        count = [finds]
        scan = scanner(wanted.structure, wanted.literals, count)
        return None if scan is None else cls(wanted, scan, count)

    def scan(self, block: bytes) -> Found:
        """Everything found in the next block."""
        if not self._decided and self._count[0] > MANY:
            self._decided = True
            patterns = line_patterns(self._wanted.patterns) if self._wanted.patterns is not None and is_utf8(block) else None
            self._scan = patterns or self._scan
        return locate_lines(block, self._scan(block))
