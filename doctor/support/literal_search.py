"""Find which of many literals occur in a text (by an index of their longest words, later with Hyperscan), or where in a block of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, AnyStr, Generic

from doctor.support.optional import optional

_TEXT = re.compile(r"[^\x00-@\[-`{-\x7f]{3,}")
"""A word in text: three letters or non-ASCII characters in a row, or more."""

_BYTES = re.compile(rb"[A-Za-z\x80-\xff]{3,}")
"""The same in bytes."""

MAX_CACHED_WORDS = 20_000
"""Upper bound of the cache word -> keys; it is emptied when full."""

LONGEST_WORD = 4_096
"""Letters of one word that are looked at: a longer run of them is encoded data."""

TEXTS_BEFORE_HYPERSCAN = 2_000
"""Texts searched before Hyperscan is used. Its database takes 40 ms to compile and is five times as fast: about the break-even."""


def escaped(text: bytes) -> bytes:
    """The Hyperscan expression for exactly this text."""
    return b"".join(b"\\x%02x" % byte for byte in text)


def database(literals: Sequence[bytes], *, once: bool = True) -> Any:
    """A Hyperscan database of the literals; ids are positions. None if Hyperscan is not installed.

    `once`: each is reported once a scan, not wherever it stands.
    """
    hyperscan = optional("hyperscan", "fast")
    if hyperscan is None:
        return None
    made, flags = hyperscan.Database(), [hyperscan.HS_FLAG_SINGLEMATCH if once else 0] * len(literals)
    try:
        made.compile(expressions=list(map(escaped, literals)), ids=list(range(len(literals))), flags=flags)
    except hyperscan.error:
        return None
    return made


class BlockSearch:
    """Finds all places of literals in blocks of bytes, with Hyperscan only: `found` is None without it."""

    def __init__(self, literals: Sequence[bytes]) -> None:
        self._literals = literals
        self._database = database(literals, once=False)
        self._hits: list[tuple[int, bytes]] = []

    def found(self, data: bytes) -> list[tuple[int, bytes]] | None:
        """(end of the place, literal), in ascending order."""
        if self._database is None:
            return None
        self._hits.clear()
        self._database.scan(data, match_event_handler=self._hit)
        self._hits.sort()
        return self._hits

    def _hit(self, number: int, _start: int, end: int, _flags: int, _context: Any) -> None:
        self._hits.append((end, self._literals[number]))


class MultiSearch(Generic[AnyStr]):
    """Index literals by their longest word; only literals whose word occurs in the text are searched for."""

    def __init__(self, literals: Iterable[AnyStr]) -> None:
        self._of_key: dict[AnyStr, list[AnyStr]] = {}
        self._odd: list[AnyStr] = []
        self._starts: dict[AnyStr, list[AnyStr]] = {}
        self._words: dict[AnyStr, tuple[AnyStr, ...]] = {}
        self._all: tuple[AnyStr, ...] = tuple(dict.fromkeys(literals))
        self._looked = 0
        self._database: Any = None
        self._hits: list[int] = []
        for literal in self._all:
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
        """The literals that occur in `text`, without duplicates; linear in its length."""
        self._looked += 1
        if self._looked == TEXTS_BEFORE_HYPERSCAN:
            raw = [literal.encode() if isinstance(literal, str) else literal for literal in self._all]
            self._database = database(raw) if all(raw) else None
        if self._database is not None:
            return self._scan(text)
        keys: dict[AnyStr, None] = {}
        for word in dict.fromkeys(_runs(text)):
            known = self._words.get(word)
            keys |= dict.fromkeys(self._keys(word) if known is None else known)
        found = [literal for literal in self._odd if literal in text]
        return found + [literal for key in keys for literal in self._of_key[key] if literal == key or literal in text]

    def _scan(self, text: AnyStr) -> list[AnyStr]:
        self._hits.clear()
        self._database.scan(text.encode("utf-8", "replace") if isinstance(text, str) else text, match_event_handler=self._hit)
        return [self._all[number] for number in self._hits]

    def _hit(self, number: int, _start: int, _end: int, _flags: int, _context: Any) -> None:
        self._hits.append(number)

    def _keys(self, word: AnyStr) -> tuple[AnyStr, ...]:
        """The keys that occur in a word."""
        if len(word) > LONGEST_WORD:
            word = word[:LONGEST_WORD]
        starts = {word[place : place + 3] for place in range(len(word) - 2)}
        keys = tuple(key for start in starts for key in self._starts.get(start, ()) if key in word)
        if len(word) < 100:
            if len(self._words) >= MAX_CACHED_WORDS:
                self._words.clear()
            self._words[word] = keys
        return keys


def _runs(text: AnyStr) -> list[AnyStr]:
    return _TEXT.findall(text) if isinstance(text, str) else _BYTES.findall(text)
