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
from raise_sites import Site, parts, sites

from doctor.diagnosis.unlisted.message_match import UNKNOWN, normalised, whole_words
from doctor.diagnosis.unlisted.origin_index import Head, Stored, StoredSite, StoredTemplate

MIN_BITS = 7
"""Templates whose words tell less are left out, about one common word: not even a frame of their function makes them an origin."""
_MAX_LITERAL = 400
"""Characters of a template that are kept; a longer one ends with unknown text."""
_KEY_WORDS = 12
"""The word by which a template is found is among its first ones: logs often show the beginning of a message only."""
_SPACE = re.compile(r"\s+")
_MARK = "\1"
"""Stands for unknown text where `normalised` would take `UNKNOWN` for white space."""
_PYTHON_OWN = frozenset(
    (
        f"'{UNKNOWN}' object has no attribute '{UNKNOWN}'",
        f"{UNKNOWN} object has no attribute {UNKNOWN}",
        f"module '{UNKNOWN}' has no attribute '{UNKNOWN}'",
        f"module {UNKNOWN} has no attribute {UNKNOWN}",
        f"'{UNKNOWN}' object is not callable",
        f"'{UNKNOWN}' object is not subscriptable",
        f"name '{UNKNOWN}' is not defined",
        f"No module named '{UNKNOWN}'",
        f"No module named {UNKNOWN}",
        f"cannot import name '{UNKNOWN}' from '{UNKNOWN}'",
        f"{UNKNOWN}() got an unexpected keyword argument '{UNKNOWN}'",
        f"{UNKNOWN} got an unexpected keyword argument '{UNKNOWN}'",
        "list index out of range",
        "index out of range",
        "tuple index out of range",
        "out of memory",
    )
)
"""Messages that the interpreter raises too: a package that imitates one (`__getattr__`) is not its origin."""
_BLOCK = 32
"""Templates a block, at least: small ones decode fast, large ones compress well."""

Place = tuple[str, str, str]
"""Module path, function, exception."""


class Collected:
    """Templates, and for each of its places the first and last release (a number in `versions`) that has it."""

    def __init__(self) -> None:
        self.versions: dict[str, list[str]] = defaultdict(list)
        self.templates: dict[str, dict[Place, tuple[int, int]]] = defaultdict(dict)
        self._parsed: dict[bytes, list[Site]] = {}

    def load_parsed(self, cache: Path) -> None:
        """Take over what an earlier run with the same code has parsed."""
        file = _parsed_file(cache)
        if file.exists():
            self._parsed = msgspec.msgpack.decode(file.read_bytes(), type=dict[bytes, list[Site]])

    def save_parsed(self, cache: Path) -> None:
        """Keep what was parsed for a later run."""
        _parsed_file(cache).write_bytes(msgspec.msgpack.encode(self._parsed))

    def add(self, module: str, releases: Iterable[tuple[str, Iterable[tuple[str, bytes]]]]) -> None:
        """Releases of a package, oldest first: version, and the paths and contents of its files. What several share is parsed once."""
        new: dict[bytes, tuple[bytes, bytes]] = {}
        files: list[tuple[int, str, list[bytes]]] = []
        for version, sources in releases:
            number = len(self.versions[module])
            self.versions[module].append(version)
            for path, source in sources:
                cut = {_digest(part): part for part in parts(source)}
                new |= {digest: (part, source) for digest, part in cut.items() if digest not in self._parsed and digest not in new}
                files.append((number, path, list(cut)))
        self._parsed.update(_parse(new))
        for number, path, digests in files:
            for site in {site: None for digest in digests for site in self._parsed[digest]}:
                self._add_site(path, number, site)

    def _add_site(self, path: str, number: int, site: Site) -> None:
        template = _template(site)
        if template.strip(UNKNOWN + " "):
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


def _template(site: Site) -> str:
    text = "".join(UNKNOWN if piece is None else piece.replace(UNKNOWN, " ") for piece in site.pieces)
    return _shortened(_SPACE.sub(" ", text))


def _shortened(template: str) -> str:
    if len(template) <= _MAX_LITERAL:
        return normalised(template.replace(UNKNOWN, _MARK)).replace(_MARK, UNKNOWN)
    return template[:_MAX_LITERAL].rpartition(" ")[0].strip(" ") + " " + UNKNOWN


def write(collected: Collected, out: Path) -> int:
    """Write the file; how many templates it has. The same input gives the same bytes."""
    found = {text: list(dict.fromkeys(whole_words(text))) for text in sorted(collected.templates)}
    frequency = Counter(word for words in found.values() for word in words)
    bits = {text: sum(math.log2(len(found) / frequency[word]) for word in words) for text, words in found.items()}
    kept = [text for text in found if bits[text] >= MIN_BITS and text not in _PYTHON_OWN]
    used = {place[0] for text in kept for place in collected.templates[text]}
    modules, exceptions = sorted(used), sorted({place[2] for text in kept for place in collected.templates[text]})
    module_number = {name: number for number, name in enumerate(modules)}
    exception_number = {name: number for number, name in enumerate(exceptions)}
    by_word: dict[str, list[StoredTemplate]] = defaultdict(list)
    for text in kept:
        places = sorted(collected.templates[text].items())
        stored = [StoredSite(module_number[m], f, exception_number[e], first, last) for (m, f, e), (first, last) in places]
        key = min(found[text][:_KEY_WORDS], key=lambda word: (frequency[word], word))
        by_word[key].append(StoredTemplate(text, round(bits[text]), stored))
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
