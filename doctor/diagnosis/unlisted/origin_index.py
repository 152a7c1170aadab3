"""The shipped index of raise sites: which templates have a word of a message, read block by block.

The file is MessagePack: a compressed head and blocks of templates, each compressed on its own. A template lies in the block of its rarest
word, so that a message needs only the blocks of its own words. `benchmarks/make_origins.py` writes it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from doctor.diagnosis.unlisted.message_match import words
from doctor.support.decoding import unpack

FILE = Path(__file__).parent / "origins.msgpack"
MAX_WORDS = 128
"""Different words of a message that are looked up: bounds the time for a hostile one."""


class StoredSite(msgspec.Struct, frozen=True, array_like=True):
    """A place that raises. `module` and `exception` are numbers in the head's tables, `first` and `last` in its package's versions."""

    module: int
    function: str
    exception: int
    first: int
    last: int


class StoredTemplate(msgspec.Struct, frozen=True, array_like=True):
    """A message template (see `message_match.UNKNOWN`), how much it tells (`bits`), and the places that raise it."""

    text: str
    bits: int
    sites: list[StoredSite]


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Tables of the index: `versions` by package, modules as paths (`transformers/trainer.py`), exception classes, words of each block."""

    versions: dict[str, list[str]]
    modules: list[str]
    exceptions: list[str]
    words: list[list[str]]


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """The file: the compressed `Head` and the compressed blocks (lists of `StoredTemplate`)."""

    head: bytes
    blocks: list[bytes]


class Index:
    """The index in memory; blocks are decoded when a message needs them."""

    def __init__(self, stored: Stored) -> None:
        self.head: Head = unpack(zlib.decompress(stored.head), Head)
        self._blocks = stored.blocks
        self._names: dict[str, list[str]] = {}
        self._block_of = {word: number for number, block in enumerate(self.head.words) for word in block}

    def candidates(self, message: str) -> Iterator[StoredTemplate]:
        """Templates that share their rarest word with the message, and some more."""
        known = (self._block_of.get(word) for word in list(dict.fromkeys(words(message)))[:MAX_WORDS])
        for number in sorted({block for block in known if block is not None}):
            yield from self.block(number)

    def block(self, number: int) -> list[StoredTemplate]:
        """The templates of one block."""
        found: list[StoredTemplate] = unpack(zlib.decompress(self._blocks[number]), list[StoredTemplate])
        return found

    def release_names(self, package: str) -> list[str]:
        """The package's releases as users know them: `4.57` where a single patch of that minor release was indexed."""
        if package not in self._names:
            versions = self.head.versions[package]
            minors = [".".join(version.split(".")[:2]) for version in versions]
            pairs = zip(versions, minors, strict=True)
            self._names[package] = [minor if minors.count(minor) == 1 else version for version, minor in pairs]
        return self._names[package]

    def templates(self) -> Iterator[StoredTemplate]:
        """All templates of the index."""
        for number in range(len(self._blocks)):
            yield from self.block(number)


@cache
def load(path: Path = FILE) -> Index:
    """The index. Raises OSError or msgspec.MsgspecError if the file is missing or damaged."""
    return Index(unpack(path.read_bytes(), Stored))
