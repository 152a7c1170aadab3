"""The shipped index of public names: which releases of a package have a module, a name, an attribute, a parameter or a model type.

The file is MessagePack: one compressed block a package, decoded when it is asked for. `benchmarks/make_api_index.py` writes it.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

import msgspec

from doctor.support.decoding import unpack

FILE = Path(__file__).parent / "api_index.msgpack"

Spans = tuple[int, ...]
"""Numbers of releases: first and last of each run of releases, one run after the other."""


class PackageNames(msgspec.Struct, frozen=True, array_like=True):
    """A package: its releases, oldest first, and the releases that have each name.

    `modules` lacks those of every release, `names` (by module) those that are there as long as their module, except for the package
    itself, whose names are complete. `attributes` (by class) and `parameters` (by function or `Class.method`) hold what came or went
    while the class or function stayed. `model_types` is complete. `asked` are names that this package imports from another indexed one
    (`module:name`), with its own releases that do.
    """

    versions: list[str]
    modules: dict[str, Spans]
    names: dict[str, dict[str, Spans]]
    attributes: dict[str, dict[str, Spans]]
    parameters: dict[str, dict[str, Spans]]
    model_types: dict[str, Spans]
    asked: dict[str, Spans]


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """The file: a compressed `PackageNames` by the package's import name."""

    packages: dict[str, bytes]


class Index:
    """The index in memory."""

    def __init__(self, stored: Stored) -> None:
        self._blocks = stored.packages
        self._known: dict[str, PackageNames] = {}

    @property
    def packages(self) -> frozenset[str]:
        """The import names of the indexed packages."""
        return frozenset(self._blocks)

    def package(self, name: str) -> PackageNames:
        """The names of one package. Raises KeyError for a package that is not indexed."""
        if name not in self._known:
            self._known[name] = unpack(zlib.decompress(self._blocks[name]), PackageNames)
        return self._known[name]


@cache
def load(path: Path = FILE) -> Index:
    """The index. Raises OSError or msgspec.MsgspecError if the file is missing or damaged."""
    return Index(unpack(path.read_bytes(), Stored))
