"""Which lines of a console anybody may want: those with a literal that a rule or the reader itself looks for.

With the extra `fast` Hyperscan finds the places of literals in a block, so that lines without them cost nothing. Before that, and without
it, lines are decided by their shapes (their bytes without digits), which repeat: most cost a look-up in a table. A text that contains a
literal also contains it after digits are removed from both, so no wanted line is lost; literals with digits are then searched for in the
line itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import compress

from doctor.support.literal_search import BlockSearch, MultiSearch

STRUCTURE, STATES, WANTED, COLOURED, FRAME, FACT = 1, 2, 4, 8, 16, 32
"""Bits of a line's class. It may be part of what is always read (STRUCTURE; FACT: a fact or a phase; STATES: it only names an exception;
FRAME: a traceback's frame), contain a literal of a rule (WANTED), or control sequences (literals are searched for without them).
0: nobody wants it."""
ALWAYS = STRUCTURE | STATES | FRAME | FACT
"""Bits of what is always read."""
_COUNTED = frozenset({STATES, WANTED, STATES | WANTED})
"""Classes of lines of which many alike are counted, not read."""
_DOUBTFUL = 64
"""A literal with digits stands in the shape; the line decides."""
ENOUGH = 1_000
"""Lines of one shape that are read. Of more, the last of each piece is read and stands for the others: an answer keeps 64 matches."""
BYTES_BEFORE_BLOCK_SEARCH = 6_000_000
"""Bytes after which Hyperscan is used: its database takes as long to make (30 to 60 ms) as these bytes to look up."""
_TRIED = 32
"""Blocks for which shapes are looked up where many lines have literals (each place costs a call), or not because they are new."""

_DIGITS = b"0123456789"
_MAX_SHAPES = 20_000
"""Shapes whose class is remembered."""
_MAX_SHAPE = 1000
"""Bytes of a shape that is remembered."""


def shape_of(raw: bytes) -> bytes:
    """The shape of a line; that of a block has its lines' shapes."""
    return raw.translate(None, _DIGITS)


class LineFilter:
    """Gives classes of lines (sums of bits). One serves all consoles of a run: it takes longer to build than most consoles take to read.

    `words`: literals by the bit that they give. Without WANTED among them every line is wanted.
    """

    def __init__(self, words: Mapping[int, Iterable[str]]) -> None:
        self._bits: dict[bytes, int] = {b"\x1b": COLOURED}
        for bit, literals in words.items():
            for word in map(str.encode, literals):
                self._bits[word] = self._bits.get(word, 0) | bit
        self._of_shape: dict[bytes, list[bytes]] = {}
        for literal in self._bits:
            self._of_shape.setdefault(shape_of(literal), []).append(literal)
        self._always = 0 if WANTED in words else WANTED
        for literal in self._of_shape.pop(b"", ()):
            self._always |= self._bits[literal]
        self._shapes = MultiSearch(self._of_shape)
        self._classes: dict[bytes, int] = {}
        self.unsearched_bytes = BYTES_BEFORE_BLOCK_SEARCH
        self._blocks: BlockSearch | None = None
        self._by_shape = 0

    def __call__(self, raw: bytes) -> int:
        """The class of one line or a part of it."""
        shape = shape_of(raw)
        known = self._class(shape)
        return self._decided(raw, shape, known) if known & _DOUBTFUL else known

    def candidates(self, data: bytes, lines: list[bytes]) -> tuple[dict[int, int], list[bytes]]:
        """The lines of a block that somebody may want: number -> class, in ascending order; and the shapes of all, or none.

        `lines` are those of `data`.
        """
        self.unsearched_bytes -= len(data)
        if self.unsearched_bytes < 0 and self._blocks is None and not self._always:
            self._blocks = BlockSearch([literal for literal in self._bits if b"\n" not in literal])
        if self._blocks is not None and self._by_shape <= 0 and (places := self._blocks.found(data)) is not None:
            self._by_shape = _TRIED if self._by_shape == 0 and len(places) > len(lines) // 4 else min(0, self._by_shape + 1)
            return self._lines_of(data, places), []
        self._by_shape = max(0, self._by_shape - 1)
        shapes = shape_of(data).split(b"\n")
        found = list(map(self._classes.get, shapes))
        if None in found:
            if found.count(None) > len(found) // 16:
                self._by_shape = -_TRIED
            found = [self._class(shape) if known is None else known for known, shape in zip(found, shapes, strict=True)]
        candidates: dict[int, int] = dict(zip(compress(range(len(found)), found), filter(None, found), strict=True))
        if max(candidates.values(), default=0) >= _DOUBTFUL:
            for number, known in candidates.items():
                candidates[number] = self._decided(lines[number], shapes[number], known) if known & _DOUBTFUL else known
        return candidates, shapes

    def _lines_of(self, data: bytes, places: list[tuple[int, bytes]]) -> dict[int, int]:
        """The lines in which these literals end."""
        found: dict[int, int] = {}
        number, stop = 0, -1
        for end, literal in places:
            if end > stop:
                number += data.count(b"\n", max(stop, 0), end)
                stop = data.find(b"\n", end)
                stop = len(data) if stop < 0 else stop
                found[number] = 0
            found[number] |= self._bits[literal]
        return found

    def _decided(self, raw: bytes, shape: bytes, known: int) -> int:
        """The class of a line whose shape contains literals without their digits."""
        known &= ~_DOUBTFUL
        if not known & WANTED:
            exact = (literal for found in self._shapes.find(shape) for literal in self._of_shape[found] if literal != found)
            known |= WANTED if any(literal in raw for literal in exact) else 0
        return known

    def _class(self, shape: bytes) -> int:
        known = self._classes.get(shape)
        if known is None:
            if len(shape) >= _MAX_SHAPE:
                return self._of_long(shape)
            if len(self._classes) >= _MAX_SHAPES:
                self._classes.clear()
            known = self._classes[shape] = self._searched(shape)
        return known

    def _of_long(self, shape: bytes) -> int:
        """The class of a long line: the redraws of its bars repeat."""
        parts = set(shape.split(b"\r"))
        if len(parts) == 1:
            return self._searched(shape)
        known = 0
        for part in parts:
            known |= self._class(part)
        return known

    def _searched(self, shape: bytes) -> int:
        known = self._always
        for found in self._shapes.find(shape):
            for literal in self._of_shape[found]:
                bit = self._bits[literal]
                known |= _DOUBTFUL if bit == WANTED and literal != found else bit
        return known


class Floods:
    """Counts the lines of a console by shape, of those shapes that only a rule or an exception makes wanted."""

    def __init__(self, counting: bool) -> None:
        self._counting = counting
        self._read: Counter[bytes] = Counter()
        self._full: set[bytes] = set()
        self.left_out = 0

    def read(self, line: bytes, known: int) -> None:
        """A line of this class is read."""
        if known in _COUNTED and len(shape := shape_of(line)) < _MAX_SHAPE and self._times(shape) >= ENOUGH:
            self._full.add(shape)

    def knows_traceback(self, end: list[bytes]) -> bool:
        """Whether enough tracebacks with these last lines were read; counts this one."""
        return self._times(shape_of(b"\n".join(end))) > ENOUGH

    def _times(self, shape: bytes) -> int:
        """How many of this shape there were, this one included; 0 where none are counted."""
        if not self._counting:
            return 0
        if len(self._read) > _MAX_SHAPES:
            self._read.clear()
        self._read[shape] += 1
        return self._read[shape]

    def in_block(self, lines: list[bytes], candidates: dict[int, int], shapes: list[bytes]) -> dict[int, int]:
        """Which lines of a block another one stands for: number -> number of the last one of its shape. `shapes`: of all lines, or none."""
        if not self._full or not candidates:
            return {}
        if shapes:
            shapes = [shapes[number] for number in candidates]
        else:
            shapes = shape_of(b"\n".join([lines[number] for number in candidates])).split(b"\n")
        if self._full.isdisjoint(shapes):
            return {}
        last = dict(zip(shapes, candidates, strict=True))
        last = {shape: last[shape] for shape in last.keys() & self._full}
        found = zip(candidates, map(last.get, shapes), strict=True)
        return {number: other for number, other in found if other is not None and other != number}
