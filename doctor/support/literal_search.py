"""Which of many literals stand in a text: one look at its words instead of one search a literal; after many texts, Hyperscan's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, AnyStr, Generic, NamedTuple

from doctor.support.optional import optional


class LinePatterns(NamedTuple):
    """What a text must have to be wanted: one of the expressions matches it, or a sign stands in it (of those only the latest counts)."""

    expressions: tuple[str, ...]
    markers: tuple[str, ...] = ()


_TEXT = re.compile(r"[^\x00-@\[-`{-\x7f]{3,}")
_BYTES = re.compile(rb"[A-Za-z\x80-\xff]{3,}")
_WORDS = 20_000
"""So many words are remembered at most."""
_MANY = 2_000
"""So many texts are looked at before Hyperscan is asked to: it takes 40 ms to begin, and a fifth of the time then."""


def escaped(text: bytes) -> bytes:
    """Hyperscan's expression that finds this text and nothing else."""
    return b"".join(b"\\x%02x" % byte for byte in text)


def database(expressions: Sequence[bytes], *, lines: bool = False, once: int = 0) -> Any:
    """Hyperscan's form of some expressions; their ids are their places. None where its wheel is missing or it cannot take one.

    `lines`: `^` and `$` stand at every line. Of the first `once` expressions a scan tells one find each.
    """
    hyperscan = optional("hyperscan", "fast")
    if hyperscan is None:
        return None
    made, flag = hyperscan.Database(), hyperscan.HS_FLAG_MULTILINE if lines else 0
    flags = [flag | hyperscan.HS_FLAG_SINGLEMATCH] * once + [flag] * (len(expressions) - once)
    try:
        made.compile(expressions=expressions, ids=list(range(len(expressions))), flags=flags)
    except hyperscan.error:
        return None
    return made


class MultiSearch(Generic[AnyStr]):
    """Each literal hangs on its longest word; a text is split into words, and what hangs on them (or inside them) is looked for."""

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
        """Those that stand in `text`, each at least once."""
        self._looked += 1
        if self._looked == _MANY:
            raw = [one.encode() if isinstance(one, str) else one for one in self._all]
            self._database = database(list(map(escaped, raw)), once=len(raw)) if all(raw) else None
        if self._database is not None:
            return self._scan(text)
        found = [literal for literal in self._odd if literal in text]
        for word in _runs(text):
            keys = self._words.get(word)
            for key in self._keys(word) if keys is None else keys:
                found += [literal for literal in self._of_key[key] if literal in text]
        return found

    def _scan(self, text: AnyStr) -> list[AnyStr]:
        self._hits.clear()
        self._database.scan(text.encode("utf-8", "replace") if isinstance(text, str) else text, match_event_handler=self._hit)
        return [self._all[number] for number in self._hits]

    def _hit(self, number: int, _start: int, _end: int, _flags: int, _context: Any) -> None:
        self._hits.append(number)

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
