"""Raise sites of many releases joined to templates with version ranges, and the file that `origin_index.py` reads."""

from __future__ import annotations

import hashlib
import math
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
from origin_packages import Source
from raise_sites import Site, parts, sites

from doctor.diagnosis.unlisted import origins
from doctor.diagnosis.unlisted.message_match import UNKNOWN, fit, normalised, whole_words
from doctor.diagnosis.unlisted.origin_index import Head, Stored, StoredSite, StoredTemplate

MIN_BITS = 7
"""Templates whose words tell less are left out, about one common word: not even a frame of their function makes them an origin."""
_MAX_LITERAL = 400
"""Characters of a template that are kept; a longer one ends with unknown text."""
_KEY_WORDS = 12
"""The word by which a template is found is among its first ones, of the first line if that tells enough: often no more is logged."""
_SPACE = re.compile(r"\s+")
_MARK = "\1"
"""Stands for unknown text where `normalised` would take `UNKNOWN` for white space."""
_INTERPRETER = (
    "'Foo' object has no attribute 'bar'",
    "Foo object has no attribute bar",
    "module 'foo.bar' has no attribute 'baz'",
    "module foo has no attribute bar",
    "'Foo' object is not callable",
    "'Foo' object is not subscriptable",
    "'Foo' object does not support item assignment",
    "name 'foo' is not defined",
    "No module named 'foo.bar'",
    "No module named foo",
    "cannot import name 'foo' from 'bar' (/srv/bar.py)",
    "foo() got an unexpected keyword argument 'bar'",
    "foo() missing 1 required positional argument: 'bar'",
    "foo got an unexpected keyword argument bar",
    "list index out of range",
    "tuple index out of range",
    "index out of range",
    "division by zero",
    "unsupported operand type(s) for +: 'int' and 'str'",
    "unsupported operand type(s) for *: 'int' and 'str'",
    "'<' not supported between instances of 'str' and 'int'",
    "cannot pickle 'Foo' object",
    "can't pickle Foo objects",
    "expected str, bytes or os.PathLike object, not NoneType",
    "invalid literal for int() with base 10: 'foo'",
    "could not convert string to float: 'foo'",
    "not enough values to unpack (expected 2, got 1)",
    "too many values to unpack (expected 2)",
    "maximum recursion depth exceeded",
    "[Errno 2] No such file or directory: 'foo'",
    "out of memory",
    "expected scalar type Half but found Float",
    "element 0 of tensors does not require grad and does not have a grad_fn",
)
"""Messages of the interpreter and of C++: a package that imitates one (`__getattr__`) is not its origin."""
_BLOCK = 32
"""Templates a block, at least: small ones decode fast, large ones compress well."""

Place = tuple[str, str, str]
"""Module path, function, exception."""


class Collected:
    """Templates, and for each of its places the first and last release (a number in `versions`) that has it."""

    def __init__(self) -> None:
        self.versions: dict[str, list[str]] = defaultdict(list)
        self.templates: dict[str, dict[Place, tuple[int, int]]] = defaultdict(dict)
        self.first_lines: dict[str, str] = {}
        self._cut: dict[tuple[int, int], list[bytes]] = {}
        self._parsed: dict[bytes, list[Site]] = {}

    def load_parsed(self, cache: Path) -> None:
        """Take over what an earlier run with the same code has parsed."""
        file = _parsed_file(cache)
        if file.exists():
            self._parsed = msgspec.msgpack.decode(file.read_bytes(), type=dict[bytes, list[Site]])

    def save_parsed(self, cache: Path) -> None:
        """Keep what was parsed for a later run."""
        _parsed_file(cache).write_bytes(msgspec.msgpack.encode(self._parsed))

    def add(self, module: str, releases: Iterable[tuple[str, Iterable[Source]]]) -> None:
        """The files of a package's releases, oldest first. What several have, a file or a function, is read and parsed once."""
        new: dict[bytes, tuple[bytes, bytes]] = {}
        files: list[tuple[int, str, list[bytes]]] = []
        for version, sources in releases:
            number = len(self.versions[module])
            self.versions[module].append(version)
            for source in sources:
                if source.key not in self._cut:
                    text = source.read()
                    cut = {_digest(part): part for part in parts(text)}
                    self._cut[source.key] = list(cut)
                    new |= {digest: (part, text) for digest, part in cut.items() if digest not in self._parsed}
                files.append((number, source.path, self._cut[source.key]))
        self._parsed.update(_parse(new))
        for number, path, digests in files:
            for site in {site: None for digest in digests for site in self._parsed[digest]}:
                self._add_site(path, number, site)

    def _add_site(self, path: str, number: int, site: Site) -> None:
        raw = "".join(UNKNOWN if piece is None else piece.replace(UNKNOWN, " ") for piece in site.pieces)
        template = _shortened(_SPACE.sub(" ", raw))
        if template.strip(UNKNOWN + " "):
            self.first_lines[template] = _SPACE.sub(" ", raw.strip().partition("\n")[0])
            places = self.templates[template]
            place = (path, site.function, site.exception)
            places[place] = (places.get(place, (number, number))[0], number)


def _parsed_file(cache: Path) -> Path:
    code = b"".join(Path(__file__).with_name(name).read_bytes() for name in ("raise_sites.py", "message_templates.py"))
    return cache / f"parsed-{_digest(code).hex()}.msgpack"


def _digest(part: bytes) -> bytes:
    return hashlib.blake2b(part, digest_size=16).digest()


def _parse(new: dict[bytes, tuple[bytes, bytes]]) -> dict[bytes, list[Site]]:
    """The sites of parts by digest; where a part is no whole source, those of its file."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(new, pool.map(sites, (part for part, _source in new.values()), chunksize=100), strict=True))
    return {digest: part if part is not None else sites(new[digest][1]) or [] for digest, part in found.items()}


def _shortened(template: str) -> str:
    if len(template) <= _MAX_LITERAL:
        return normalised(template.replace(UNKNOWN, _MARK)).replace(_MARK, UNKNOWN)
    return template[:_MAX_LITERAL].rpartition(" ")[0].strip(" ") + " " + UNKNOWN


def write(collected: Collected, out: Path) -> int:
    """Write the file; how many templates it has. The same input gives the same bytes."""
    words = {text: list(dict.fromkeys(whole_words(text))) for text in sorted(collected.templates)}
    frequency = Counter(word for found in words.values() for word in found)
    information = {word: math.log2(len(words) / count) for word, count in frequency.items()}
    bits = {text: sum(information[word] for word in found) for text, found in words.items()}
    kept = [text for text in words if bits[text] >= MIN_BITS and not any(_imitates(text, own) for own in _INTERPRETER)]
    places = {place for text in kept for place in collected.templates[text]}
    modules, exceptions = sorted({place[0] for place in places}), sorted({place[2] for place in places})
    numbers = {name: number for names in (modules, exceptions) for number, name in enumerate(names)}
    by_word: dict[str, list[StoredTemplate]] = defaultdict(list)
    for text in kept:
        sites = [StoredSite(numbers[m], f, numbers[e], *span) for (m, f, e), span in sorted(collected.templates[text].items())]
        by_word[_key_word(words[text], collected.first_lines[text], information)].append(StoredTemplate(text, round(bits[text]), sites))
    blocks = list(_blocks(by_word))
    head = Head(dict(collected.versions), modules, exceptions, [list(block) for block in blocks])
    packed = [zlib.compress(msgspec.msgpack.encode([entry for entries in block.values() for entry in entries]), 9) for block in blocks]
    out.write_bytes(msgspec.msgpack.encode(Stored(zlib.compress(msgspec.msgpack.encode(head), 9), packed)))
    return len(kept)


def _imitates(text: str, own: str) -> bool:
    found = fit(text, own)
    return found is not None and found.grade == "whole"


def _key_word(words: list[str], first_line: str, information: dict[str, float]) -> str:
    """The rarest word of those that a log shows even if it shows the beginning of the message only."""
    shown = set(whole_words(first_line))
    early = [word for word in words if word in shown]
    if sum(information[word] for word in early) < origins.MIN_BITS_OWN:
        early = words
    return max(early[:_KEY_WORDS], key=lambda word: (information[word], word))


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
