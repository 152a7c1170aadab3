"""Load the rulebook: shipped rules and those of plugins, cached in parsed form."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from doctor.rulebook.model import Body, FixExample, Guide, GuideStep, LineExample, Op, Remedy, Rule, Rulebook, Scale
from doctor.support import cache
from doctor.support.decoding import unpack
from doctor.support.package_files import is_rulebook, rules_folder
from doctor.support.texts import Text

_SHAPE = [
    [field.name for field in msgspec.structs.fields(kind)]
    for kind in (Text, Body, Scale, Op, Remedy, LineExample, FixExample, Rule, GuideStep, Guide)
]
"""Field names of all cached records; part of the cache key, so another version's cache is not used."""


def load(folders: Iterable[Path] = (), *, detectors: Mapping[str, Any] | None = None) -> Rulebook:
    """The shipped rules and those in `folders`, from the cache if nothing changed (see `cache_file`).

    A folder among them that is a rulebook itself (a checkout's) takes the place of the shipped rules.

    With `detectors` (name -> class) every `when:` is checked by constructing its detector, without the cache. Raises DoctorError with
    file and line at the first bad rule.
    """
    given = tuple(folders)
    whole = next(filter(is_rulebook, given), rules_folder())
    sources = (whole, *(folder for folder in given if folder != whole))
    cached = None if detectors is not None else cache_file(sources)
    book = _from_cache(cached)
    if book is None:
        from doctor.rulebook import parsing  # imports PyYAML, which a cached rulebook does not need

        book = parsing.read(sources, detectors)
        if cached is not None:
            cache.write_cache(cached, msgspec.msgpack.encode(book))
    return book


def cache_file(folders: Iterable[Path]) -> Path | None:
    """Path of the parsed rules in the cache: 5 ms to load, against 0.3 s for 150 YAML files. None if LFDOCTOR_CACHE is `off`.

    The name contains a digest of every file's path, size and modification time.
    """
    base = cache.folder()
    if base is None:
        return None
    digest = hashlib.blake2b(f"{_SHAPE}".encode(), digest_size=12)
    for folder in folders:
        for entry in _walk(folder):
            stat = entry.stat()
            digest.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return base / f"rules-{digest.hexdigest()}.msgpack"


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The YAML files up to two levels deep, in a fixed order; lists each folder once."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from sorted((file for file in os.scandir(entry) if file.name.endswith(".yaml")), key=lambda file: file.name)
        elif entry.name in ("guide.yaml", "remedies.yaml", "options.yaml", "lists.yaml", "versions.yaml"):
            yield entry


def _from_cache(path: Path | None) -> Rulebook | None:
    if path is None:
        return None
    try:
        return _unpacked(path)
    except (OSError, msgspec.MsgspecError):
        return None


@lru_cache(maxsize=2)
def _unpacked(path: Path) -> Rulebook:
    """The rules of a cache file: its name tells what it holds, and nobody changes a rulebook, so one serves all analyses of a process."""
    return unpack(path.read_bytes(), Rulebook)
