"""Folder listings: the entries that discovery sorts into runs, from local folders or from another storage."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

Kind = Literal["file", "folder", "odd"]


class Entry(msgspec.Struct, frozen=True):
    """An entry of a folder: `size` in bytes, `changed` in nanoseconds (0: unknown); `odd`: a pipe, device or dead link."""

    name: str
    path: str
    kind: Kind
    size: int = 0
    changed: int = 0
    tag: str = ""


class Listing(Protocol):
    """Lists folders."""

    def list(self, folder: str) -> Iterator[Entry]:
        """The entries of a folder. Raises OSError."""
        ...


class LocalListing:
    """Local folders. Links to files are followed, links to folders are not: their targets are found where they are."""

    def list(self, folder: str) -> Iterator[Entry]:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield _local(entry)


def _local(entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat()
    except OSError:
        return Entry(entry.name, entry.path, "odd")
    if stat.S_ISDIR(status.st_mode):
        return Entry(entry.name, entry.path, "odd" if entry.is_symlink() else "folder")
    kind: Kind = "file" if stat.S_ISREG(status.st_mode) else "odd"
    return Entry(entry.name, entry.path, kind, status.st_size, status.st_mtime_ns)
