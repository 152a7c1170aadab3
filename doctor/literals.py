"""Which of many literals stand in a text: one look at its words instead of one search a literal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import AnyStr, Generic, NamedTuple


class Sieve(NamedTuple):
    """What a text must have to be wanted: one of the expressions matches it, or a sign stands in it (of those only the latest counts)."""

    expressions: tuple[re.Pattern[str] | str, ...]
    signs: tuple[str, ...] = ()


_TEXT = re.compile(r"[^\x00-@\[-`{-\x7f]{3,}")
_BYTES = re.compile(rb"[A-Za-z\x80-\xff]{3,}")
_WORDS = 20_000
"""So many words are remembered at most."""


class Literals(Generic[AnyStr]):
    """Each literal hangs on its longest word; a text is split into words, and what hangs on them (or inside them) is looked for."""

    def __init__(self, literals: Iterable[AnyStr]) -> None:
        self._of_key: dict[AnyStr, list[AnyStr]] = {}
        self._odd: list[AnyStr] = []
        self._starts: dict[AnyStr, list[AnyStr]] = {}
        self._words: dict[AnyStr, tuple[AnyStr, ...]] = {}
        for literal in dict.fromkeys(literals):
            self._add(literal)

    def _add(self, literal: AnyStr) -> None:
        key = max(_runs(literal), key=len, default=None)
        if key is None:
            self._odd.append(literal)
            return
        if key not in self._of_key:
            self._starts.setdefault(key[:3], []).append(key)
        self._of_key.setdefault(key, []).append(literal)

    def find(self, text: AnyStr) -> list[AnyStr]:
        """Those that stand in `text`, each at least once."""
        found = [literal for literal in self._odd if literal in text]
        for word in _runs(text):
            keys = self._words.get(word)
            for key in self._keys(word) if keys is None else keys:
                found += [literal for literal in self._of_key[key] if literal in text]
        return found

    def _keys(self, word: AnyStr) -> tuple[AnyStr, ...]:
        """The keys that stand in a word."""
        starts = {word[place : place + 3] for place in range(len(word) - 2)}
        keys = tuple(key for start in starts for key in self._starts.get(start, ()) if key in word)
        if len(word) < 100:
            if len(self._words) >= _WORDS:
                self._words.clear()
            self._words[word] = keys
        return keys


def _runs(text: AnyStr) -> list[AnyStr]:
    return _TEXT.findall(text) if isinstance(text, str) else _BYTES.findall(text)
