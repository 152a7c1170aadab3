"""The rulebook of a program: shipped rules and those of plugins, read once and kept compiled in the user's cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.rulebook.model import Body, FixExample, Guide, GuideStep, LineExample, Op, Remedy, Rule, Rulebook, Scale
from doctor.support import cache
from doctor.support.decoding import unpack
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

_SHAPE = [
    [field.name for field in msgspec.structs.fields(kind)]
    for kind in (Text, Body, Scale, Op, Remedy, LineExample, FixExample, Rule, GuideStep, Guide)
]
"""The fields of everything a compiled rulebook holds: another version's cache is never taken for ours."""


def load(folders: Iterable[Path] = (), *, detectors: Mapping[str, Any] | None = None) -> Rulebook:
    """The shipped rules and those in `folders`.

    With `detectors` (name -> class) every `when:` is tried too. Raises DoctorError with file and line on the first bad rule.
    What was read before and has not changed since comes from a cache of the user's own (see `cache_file`).
    """
    sources = (rules_folder(), *folders)
    cached = None if detectors is not None else cache_file(sources)
    book = _from_cache(cached)
    if book is None:
        from doctor.rulebook import parsing  # the YAML library is needed only when something changed

        book = parsing.read(sources, detectors)
        if cached is not None:
            cache.write_cache(cached, msgspec.msgpack.encode(book))
    return book


def cache_file(folders: Iterable[Path]) -> Path | None:
    """Where the compiled form of these rules is kept: parsing 150 YAML files costs 0.3 s of every start, the compiled form 5 ms.

    The name holds a digest of every file's path, size and time of change. None where LFDOCTOR_CACHE is `off`.
    """
    where = cache.folder()
    if where is None:
        return None
    digest = hashlib.blake2b(f"{_SHAPE}".encode(), digest_size=12)
    for folder in folders:
        for entry in _walk(folder):
            stat = entry.stat()
            digest.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return where / f"rules-{digest.hexdigest()}.msgpack"


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every YAML file up to two levels deep, in a fixed order; one listing a folder."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from sorted((one for one in os.scandir(entry) if one.name.endswith(".yaml")), key=lambda one: one.name)
        elif entry.name in ("guide.yaml", "remedies.yaml", "options.yaml", "lists.yaml"):
            yield entry


def _from_cache(path: Path | None) -> Rulebook | None:
    if path is None:
        return None
    try:
        return unpack(path.read_bytes(), Rulebook)
    except (OSError, msgspec.MsgspecError):
        return None
