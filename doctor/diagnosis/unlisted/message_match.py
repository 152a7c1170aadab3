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
_ELLIPSIS = re.compile(r"\s*(?:\.\.\.|…)$")

Grade = Literal["whole", "part", "cut"]
"""The message is the template filled in; contains it, with other text before or after; ends inside it, as a first line alone does."""


class Fit(NamedTuple):
    """How a message fits a template: `share` of the template's literal characters that the message shows (0..1)."""

    grade: Grade
    share: float


def normalised(text: str) -> str:
    """The text on one line: white space is not compared, since logs and trackers wrap lines."""
    return _SPACE.sub(" ", text[:MAX_MESSAGE].replace(UNKNOWN, " ")).strip()


def words(text: str) -> list[str]:
    """The words of a text: three letters, digits or underscores in a row, or more."""
    return _WORD.findall(text)


def whole_words(template: str) -> list[str]:
    """The words of a template that stand as they are in every message: none that touches unknown text."""
    found = _WORD.finditer(template)
    return [
        word[0]
        for word in found
        if template[word.start() - 1 : word.start()] != UNKNOWN and template[word.end() : word.end() + 1] != UNKNOWN
    ]


def fit(template: str, message: str) -> Fit | None:
    """How a message fits a template, both normalised; None if it was not built from it. Linear in the message's length for each piece."""
    pieces = template.split(UNKNOWN)
    place, whole = 0, message.startswith(pieces[0])
    for number, piece in enumerate(pieces[:-1]):
        found = message.find(piece, place)
        if found < 0:
            return _cut(pieces, number, message[place:]) if whole else None
        place = found + len(piece)
    last = pieces[-1]
    rest = message[place:]
    if rest.endswith(last) and whole and (len(pieces) > 1 or rest == last):
        return Fit("whole", 1.0)
    if last in rest:
        return Fit("part", 1.0)
    return _cut(pieces, len(pieces) - 1, rest) if whole else None


def _cut(pieces: list[str], number: int, rest: str) -> Fit | None:
    """A message that ends inside piece `number`, or with an ellipsis somewhere before it."""
    shown = _ELLIPSIS.sub("", rest)
    begun = next((size for size in range(min(len(pieces[number]) - 1, len(shown)), 2, -1) if shown.endswith(pieces[number][:size])), 0)
    known = sum(map(len, pieces[:number])) + begun
    if not known or (not begun and shown == rest):
        return None
    return Fit("cut", known / sum(map(len, pieces)))
