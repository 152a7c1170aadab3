"""Text that wraps as Chinese is set: lines break between its characters, too, but never before a closing mark or after an opening one.

Rich breaks at blanks only, so a Chinese clause moves to the next line as one long word. Other scripts, Korean with them, break as before.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

from rich.cells import cell_len, chop_cells
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.containers import Lines
from rich.text import Text

_WIDE = re.compile("[\u2e80-\u303e\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff60]")
"""Han, kana and their punctuation; Hangul is not here, for Korean breaks at blanks (UAX #14 leaves both to the language)."""
_CLOSING = frozenset("，。、；：！？）》」』】〉”’…～%")
_OPENING = frozenset("（《「『【〈“‘")


class Flowing(Text):
    """A text for the page; printed inside something else (a table, a padding), it breaks where Chinese may."""

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
        """Its lines, none wider than `width` columns."""
        if no_wrap or not _WIDE.search(self.plain):
            return super().wrap(console, width, justify=justify, overflow=overflow, tab_size=tab_size, no_wrap=no_wrap)
        out = Lines()
        for line in self.split(allow_blank=True):
            for part in line.divide(breaks(line.plain, width)):
                part.rstrip()
                out.extend(part.wrap(console, width, justify=justify, overflow=overflow, tab_size=tab_size))
        return out


def breaks(line: str, width: int) -> list[int]:
    """Where to break one line so that every piece takes at most `width` columns, less the blanks at its end; longer words are cut."""
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
