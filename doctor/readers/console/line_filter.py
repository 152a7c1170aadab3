"""Which lines of a console anybody may want, decided by their shapes: their bytes without digits.

Shapes repeat, so most lines cost a look-up in a table, and a block's shapes are made at once. Only a shape that is new is searched for
literals. A text that contains a literal also contains it after digits are removed from both, so no wanted line is lost; literals with
digits are then searched for in the line itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from doctor.support.literal_search import MultiSearch

STRUCTURE, STATES, WANTED, BAR, COLOURED = 1, 2, 4, 8, 16
"""Bits of a line's class. It may be part of what is always read (STRUCTURE; STATES: it only names an exception), contain a literal of a
rule, a progress bar, or control sequences (literals are searched for without them)."""
READ = STRUCTURE | STATES | WANTED | COLOURED
"""Bits of lines that are read whatever comes before."""
_DOUBTFUL = 32
"""A literal with digits stands in the shape; the line decides."""
ENOUGH = 1_000
"""Lines of one shape that are read. Of more, the last of each piece is read and stands for the others: an answer keeps 64 matches."""

_DIGITS = b"0123456789"
_MAX_SHAPES = 20_000
"""Shapes whose class is remembered."""
_MAX_SHAPE = 1000
"""Bytes of a shape that is remembered."""


class LineFilter:
    """Gives classes of lines (sums of bits). One serves all consoles of a run: it takes longer to build than most consoles take to read.

    `words`: literals by the bit that they give. Without WANTED among them every line is wanted.
    """

    def __init__(self, words: Mapping[int, Iterable[str]]) -> None:
        self._masks: dict[bytes, int] = {}
        self._exact: dict[bytes, list[bytes]] = {}
        self._doubtful: dict[bytes, list[bytes]] = {}
        for usual, literals in words.items():
            for word in literals:
                stripped = word.encode().translate(None, _DIGITS)
                doubtful = usual == WANTED and word.isascii() and 0 < len(stripped) < len(word)
                self._masks[stripped] = self._masks.get(stripped, 0) | (_DOUBTFUL if doubtful else usual)
                if doubtful:
                    self._exact.setdefault(stripped, []).append(word.encode())
        self._always = (0 if WANTED in words else WANTED) | self._masks.pop(b"", 0)
        self._literals = MultiSearch(self._masks)
        self._classes: dict[bytes, int] = {}

    def __call__(self, raw: bytes) -> int:
        """The class of one line or a part of it."""
        shape = raw.translate(None, _DIGITS)
        known = self._class(shape)
        return self._decided(raw, shape, known) if known & _DOUBTFUL else known

    def classes(self, lines: list[bytes], shapes: list[bytes]) -> list[int]:
        """The classes of lines with these shapes."""
        found = list(map(self._classes.get, shapes))
        classes = [self._class(shape) if known is None else known for known, shape in zip(found, shapes, strict=True)]
        if max(classes, default=0) < _DOUBTFUL:
            return classes
        decided = zip(lines, shapes, classes, strict=True)
        return [self._decided(line, shape, known) if known & _DOUBTFUL else known for line, shape, known in decided]

    def _decided(self, raw: bytes, shape: bytes, known: int) -> int:
        """The class of a line whose shape contains literals without their digits."""
        known &= ~_DOUBTFUL
        if known & WANTED:
            return known
        exact = self._doubtful.get(shape)
        if exact is None:
            exact = [literal for found in self._literals.find(shape) for literal in self._exact.get(found, ())]
            if len(shape) < _MAX_SHAPE:
                self._doubtful[shape] = exact
        return known | (WANTED if any(literal in raw for literal in exact) else 0)

    def _class(self, shape: bytes) -> int:
        known = self._classes.get(shape)
        if known is None:
            if len(shape) >= _MAX_SHAPE:
                return self._of_long(shape)
            if len(self._classes) >= _MAX_SHAPES:
                self._classes.clear()
                self._doubtful.clear()
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
        found = self._always | (BAR if b"%|" in shape else 0) | (COLOURED if b"\x1b" in shape else 0)
        for literal in self._literals.find(shape):
            found |= self._masks[literal]
        return found


def shapes_of(data: bytes) -> list[bytes]:
    """The shapes of a block's lines."""
    return data.translate(None, _DIGITS).split(b"\n")


class Floods:
    """Counts the lines of a console by shape, of those shapes that only a rule or an exception makes wanted."""

    def __init__(self, counting: bool) -> None:
        self._counting = counting
        self._read: Counter[bytes] = Counter()
        self._full: set[bytes] = set()
        self.left_out = 0

    def read(self, shape: bytes, known: int) -> None:
        """A line of this shape and class is read."""
        if self._counting and not known & (STRUCTURE | COLOURED) and len(shape) < _MAX_SHAPE:
            self._read[shape] += 1
            if self._read[shape] >= ENOUGH:
                self._full.add(shape)
            elif len(self._read) > _MAX_SHAPES:
                self._read.clear()

    def in_block(self, shapes: list[bytes]) -> dict[int, int]:
        """Which lines of a block stand for others: number -> how many lines of its shape the block has; 0: another stands for it."""
        if not self._full or self._full.isdisjoint(shapes):
            return {}
        places: dict[bytes, list[int]] = {}
        for place, shape in enumerate(shapes):
            if shape in self._full:
                places.setdefault(shape, []).append(place)
        self.left_out += sum(len(same) - 1 for same in places.values())
        return {place: len(same) if place == same[-1] else 0 for same in places.values() for place in same}
