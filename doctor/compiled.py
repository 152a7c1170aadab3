"""The compiled form of data files, kept in a cache of the user's own: parsing YAML costs 0.3 s of every start, this a few milliseconds."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")
KEPT = 12
"""So many compiled forms of one kind stay: several environments, each with its own lfdoctor, take turns without emptying each other's."""


def load(kind: str, files: Iterable[os.DirEntry[str] | Path], shape: object, type_: type[T], build: Callable[[], T]) -> T:
    """What `build()` makes of `files`, from the cache where nothing has changed since.

    `kind` names the cache's files, `shape` is whatever tells this version's records from another's. LFDOCTOR_CACHE names the folder
    (default XDG_CACHE_HOME, LOCALAPPDATA or ~/.cache), `off` means none. A cache that cannot be read or written costs time, nothing else.
    """
    path = _place(kind, files, shape)
    if path is None:
        return build()
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=type_)
    except (OSError, msgspec.MsgspecError):
        built = build()
        _keep(path, kind, built)
        return built


def _place(kind: str, files: Iterable[os.DirEntry[str] | Path], shape: object) -> Path | None:
    """The name holds a digest of every file's path, size and time of change."""
    where = os.environ.get("LFDOCTOR_CACHE")
    if where == "off":
        return None
    try:
        base = where or os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or str(Path.home() / ".cache")
        digest = hashlib.blake2b(f"{shape}".encode(), digest_size=12)
        for file in files:
            stat = file.stat()
            digest.update(f"{os.fspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    except (OSError, RuntimeError):  # no home folder; a file that went away: build() says what is wrong
        return None
    return Path(base) / "lfdoctor" / f"{kind}-{digest.hexdigest()}.msgpack"


def _keep(path: Path, kind: str, built: object) -> None:
    """Writes beside, then moves into place; the oldest of more than KEPT are removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(msgspec.msgpack.encode(built))
        Path(file.name).replace(path)
        by_age = sorted(path.parent.glob(f"{kind}-*.msgpack"), key=lambda one: one.stat().st_mtime_ns)
        for old in by_age[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return
