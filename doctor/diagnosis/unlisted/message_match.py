"""Whether a message was built from a template: the template's literal pieces stand in it, in order."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

UNKNOWN = "\0"
"""Stands in a template for text that is only known when the program runs."""
MAX_MESSAGE = 8_000
"""Characters of a message that are looked at."""
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\w{3,}")
_END = " .:!…"

Grade = Literal["whole", "part", "cut"]
"""The message is the template filled in; contains it, with other text before or after; ends inside it, as a first line alone does."""


class Fit(NamedTuple):
    """How a message fits a template: `share` of the template's literal characters that the message shows (0..1)."""

    grade: Grade
    share: float


def normalised(text: str) -> str:
    """The text on one line without punctuation at its end: logs and trackers wrap lines and drop a last full stop."""
    return _SPACE.sub(" ", text[:MAX_MESSAGE].replace(UNKNOWN, " ")).strip().rstrip(_END)


def words(text: str) -> list[str]:
    """The words of a text: three letters, digits or underscores in a row, or more."""
    return _WORD.findall(text)


def whole_words(template: str) -> list[str]:
    """The words of a template that stand as they are in every message: none that touches unknown text."""
    around = ((word[0], template[max(0, word.start() - 1)], template[word.end() : word.end() + 1]) for word in _WORD.finditer(template))
    return [word for word, before, after in around if UNKNOWN not in (before, after)]


def fit(template: str, message: str) -> Fit | None:
    """How a message fits a template, both normalised; None if it was not built from it. Linear in the message's length for each piece."""
    pieces = template.split(UNKNOWN)
    anchored = message.startswith(pieces[0])
    place = 0
    for number, piece in enumerate(pieces[:-1]):
        found = message.find(piece, place)
        if found < 0:
            return _cut(pieces, number, message[place:]) if anchored or number == 0 else None
        place = found + len(piece)
    last, rest = pieces[-1], message[place:]
    if anchored and rest.endswith(last) and (len(pieces) > 1 or rest == last):
        return Fit("whole", 1.0)
    if last in rest:
        return Fit("part", 1.0)
    return _cut(pieces, len(pieces) - 1, rest) if anchored or len(pieces) == 1 else None


def _cut(pieces: list[str], number: int, rest: str) -> Fit | None:
    """A message that ends inside piece `number`, or in the unknown text before it."""
    total = sum(map(len, pieces))
    if number == 0:
        return Fit("cut", len(rest) / total) if rest and pieces[0].startswith(rest) else None
    sizes = range(min(len(pieces[number]) - 1, len(rest)), 0, -1)
    begun = next((size for size in sizes if rest.endswith(pieces[number][:size].rstrip(_END) or UNKNOWN)), 0)
    known = sum(map(len, pieces[:number])) + begun
    return Fit("cut", known / total) if known else None
