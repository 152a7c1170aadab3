"""Raise sites of many releases joined to templates with version ranges, and the file that doctor/diagnosis/unlisted/origin_index.py reads."""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
from raise_sites import Site, sites

from doctor.diagnosis.unlisted.message_match import UNKNOWN, normalised, whole_words
from doctor.diagnosis.unlisted.origin_index import Head, Stored, StoredSite, StoredTemplate

MIN_BITS = 16
"""Templates whose words tell less are left out ("{} is not supported"): they would explain messages of any origin."""
_MAX_LITERAL = 400
"""Characters of a template that are kept; a longer one ends with unknown text."""
_KEY_WORDS = 12
"""The word by which a template is found is among its first ones: logs often show the beginning of a message only."""
_BLOCK = 64
"""Templates a block, at least: small ones decode fast, large ones compress well."""

Place = tuple[str, str, str]
"""Module path, function, exception."""


class Collected:
    """Templates, and for each of its places the first and last release (a number in `versions`) that has it."""

    def __init__(self) -> None:
        self.versions: dict[str, list[str]] = defaultdict(list)
        self.templates: dict[str, dict[Place, tuple[int, int]]] = defaultdict(dict)
        self._parsed: dict[bytes, list[Site]] = {}

    def add(self, module: str, version: str, sources: Iterable[tuple[str, bytes]]) -> None:
        """A release later than all added before. Files that an earlier release has as well are not parsed again."""
        number = len(self.versions[module])
        self.versions[module].append(version)
        files = [(path, hashlib.blake2b(source).digest(), source) for path, source in sources]
        new = {digest: source for _path, digest, source in files if digest not in self._parsed}
        self._parsed.update(_parse(new))
        for path, digest, _source in files:
            for site in self._parsed[digest]:
                self._add_site(path, number, site)

    def _add_site(self, path: str, number: int, site: Site) -> None:
        template = _template(site)
        if template.strip(UNKNOWN + " "):
            places = self.templates[template]
            place = (path, site.function, site.exception)
            places[place] = (places.get(place, (number, number))[0], number)


def _parse(sources: dict[bytes, bytes]) -> Iterator[tuple[bytes, list[Site]]]:
    """The sites of files, by digest; in parallel where that pays."""
    if len(sources) < 50:
        return zip(sources, map(sites, sources.values()), strict=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return zip(sources, list(pool.map(sites, sources.values(), chunksize=20)), strict=True)


def _template(site: Site) -> str:
    text = "".join(UNKNOWN if piece is None else piece.replace(UNKNOWN, " ") for piece in site.pieces)
    return _shortened(UNKNOWN.join(map(_inner, text.split(UNKNOWN))))


def _inner(piece: str) -> str:
    """A literal piece with single spaces, at its ends too."""
    return normalised(f"|{piece}|")[1:-1]


def _shortened(template: str) -> str:
    if len(template) <= _MAX_LITERAL:
        return template.strip(" ")
    return template[:_MAX_LITERAL].rpartition(" ")[0].strip(" ") + " " + UNKNOWN


def write(collected: Collected, out: Path) -> int:
    """Write the file; how many templates it has. The same input gives the same bytes."""
    found = {text: list(dict.fromkeys(whole_words(text))) for text in sorted(collected.templates)}
    frequency = Counter(word for words in found.values() for word in words)
    bits = {text: sum(math.log2(len(found) / frequency[word]) for word in words) for text, words in found.items()}
    kept = [text for text in found if bits[text] >= MIN_BITS]
    used = {place[0] for text in kept for place in collected.templates[text]}
    modules, exceptions = sorted(used), sorted({place[2] for text in kept for place in collected.templates[text]})
    by_word: dict[str, list[StoredTemplate]] = defaultdict(list)
    numbers = {name: number for number, name in enumerate(modules)}, {name: number for number, name in enumerate(exceptions)}
    for text in kept:
        places = collected.templates[text]
        stored = [StoredSite(numbers[0][m], f, numbers[1][e], *places[m, f, e]) for m, f, e in sorted(places)]
        by_word[min(found[text][:_KEY_WORDS], key=lambda word: (frequency[word], word))].append(
            StoredTemplate(text, round(bits[text]), stored)
        )
    blocks = list(_blocks(by_word))
    head = Head(dict(collected.versions), modules, exceptions, [list(block) for block in blocks])
    packed = [zlib.compress(msgspec.msgpack.encode([entry for entries in block.values() for entry in entries]), 9) for block in blocks]
    out.write_bytes(msgspec.msgpack.encode(Stored(zlib.compress(msgspec.msgpack.encode(head), 9), packed)))
    return len(kept)


def _blocks(by_word: dict[str, list[StoredTemplate]]) -> Iterator[dict[str, list[StoredTemplate]]]:
    """Words in alphabetical order, the templates of one word together."""
    block: dict[str, list[StoredTemplate]] = {}
    for word in sorted(by_word):
        block[word] = by_word[word]
        if sum(map(len, block.values())) >= _BLOCK:
            yield block
            block = {}
    if block:
        yield block
