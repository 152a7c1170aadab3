"""Storage of runs behind one interface: local folders, or anything fsspec knows (`s3://`, `gs://`, `hdfs://` ...)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.readers.listing import Entry, Kind, Listing, LocalListing
from doctor.support.optional import need


class Storage(Listing, Protocol):
    """Lists folders and fingerprints files."""

    def ends(self, entry: Entry) -> bytes:
        """Bytes from both ends of a file, to notice changes; empty if the listing is enough."""
        ...


def remote(path: str) -> bool:
    """Whether fsspec must read this path."""
    return "://" in path


def storage_of(root: str) -> Storage:
    """The storage of a root. Raises DoctorError: 3 if the root does not exist, 2 if its storage cannot be reached."""
    if remote(root):
        return Remote(root)
    if not Path(root).exists():
        raise DoctorError(f"{root}: no such file or folder", NOTHING_TO_READ)
    return Local()


class Local(LocalListing):
    """Local files."""

    def ends(self, entry: Entry) -> bytes:
        """The first and the last 4 KiB."""
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except OSError as error:
            return str(error.errno).encode()
        try:
            if entry.size <= 2 * _END:
                return os.read(descriptor, 2 * _END)
            head = os.read(descriptor, _END)
            os.lseek(descriptor, -_END, os.SEEK_END)
            return head + os.read(descriptor, _END)
        except OSError as error:
            return str(error.errno).encode()
        finally:
            os.close(descriptor)


_END = 4096
"""Bytes of each end of a file that are compared."""


class Remote:
    """A storage behind fsspec; a file's ETag or checksum replaces its bytes."""

    def __init__(self, root: str) -> None:
        self.protocol = root.partition("://")[0]
        self.system = system(root)
        try:
            there = self.system.exists(root)
        except Exception as error:  # every storage has errors of its own
            raise DoctorError(f"{root}: cannot be reached: {type(error).__name__}: {error}") from error
        if not there:
            raise DoctorError(f"{root}: no such folder", NOTHING_TO_READ)

    def list(self, folder: str) -> Iterator[Entry]:
        for entry in self.system.ls(folder, detail=True):
            path = self.system.unstrip_protocol(entry["name"])
            kind: Kind = "folder" if entry.get("type") == "directory" else "file" if entry.get("type") == "file" else "odd"
            tag = str(entry.get("ETag") or entry.get("etag") or entry.get("md5Hash") or entry.get("checksum") or "")
            yield Entry(path.rstrip("/").rpartition("/")[2], path, kind, int(entry.get("size") or 0), _nanoseconds(entry), tag)

    def ends(self, entry: Entry) -> bytes:
        return entry.tag.encode()


def system(root: str) -> Any:
    """The fsspec file system of a URL. Raises DoctorError if fsspec or the storage's package is missing."""
    fsspec = need("fsspec", "fleet")
    try:
        return fsspec.core.url_to_fs(root)[0]
    except (ImportError, ValueError) as error:
        raise DoctorError(f"{root}: {error}") from error


def _nanoseconds(info: dict[str, Any]) -> int:
    """The modification time, under any of the names and types that storages use."""
    value = next(
        (info[name] for name in ("mtime", "LastModified", "last_modified", "updated", "modificationTime", "created") if info.get(name)), 0
    )
    if isinstance(value, datetime):
        return int(value.timestamp() * 1e9)
    if isinstance(value, str):
        try:
            return int(datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() * 1e9)
        except ValueError:
            return 0
    return int(value / 1000 * 1e9) if value > 1e11 else int(value * 1e9)
