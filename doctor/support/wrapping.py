"""Line breaking for Chinese: lines also break between characters, but not before closing or after opening punctuation.

Rich breaks at spaces only, so it treats a Chinese clause as a single word. Other scripts, including Korean, break as in Rich.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

from rich.cells import cell_len, chop_cells
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.containers import Lines
from rich.text import Text

_WIDE = re.compile("[\u2e80-\u303e\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff60]")
"""Han, kana and their punctuation. Without Hangul, as Korean breaks at spaces (UAX #14 leaves that to the language)."""

_CLOSING = frozenset("，。、；：！？）》」』】〉”’…～%")
"""No break before these (UAX #14, classes CL and NS)."""

_OPENING = frozenset("（《「『【〈“‘")
"""No break after these (UAX #14, class OP)."""


class Flowing(Text):
    """A rich Text with these line breaks; they apply if it is printed inside another renderable (a table, a padding)."""

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        """The lines, at most `width` columns wide."""
        if no_wrap or not _WIDE.search(self.plain):
            return super().wrap(console, width, justify=justify, overflow=overflow, tab_size=tab_size, no_wrap=no_wrap)
        out = Lines()
        for line in self.split(allow_blank=True):
            for part in line.divide(breaks(line.plain, width)):
                part.rstrip()
                out.extend(part.wrap(console, width, justify=justify, overflow=overflow, tab_size=tab_size))
        return out


def breaks(line: str, width: int) -> list[int]:
    """Positions at which to break a line. Pieces have at most `width` columns without trailing spaces; longer words are cut."""
    places = [0, *(place for place, pair in enumerate(pairwise(line), 1) if _may_break(*pair)), len(line)]
    out: list[int] = []
    column = 0
    for start, end in pairwise(places):
        word = line[start:end].rstrip()
        if column and column + cell_len(word) > width:
            out.append(start)
            column = 0
        *cut, last = chop_cells(word, width) or [""]
        out += [start + done for done in accumulate(map(len, cut))]
        column += cell_len(last) + end - start - len(word)
    return out


def _may_break(before: str, after: str) -> bool:
    if after.isspace():
        return False
    if before.isspace():
        return True
    wide = _WIDE.match(before) or _WIDE.match(after)
    return bool(wide) and after not in _CLOSING and before not in _OPENING
