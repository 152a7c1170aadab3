"""Runs in archives and buckets: the files that may be readable are copied to a temporary folder first."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.readers.file import CHUNK
from doctor.readers.formats.compression import compression, decompressor
from doctor.readers.walk import DEPTH, FILES, Skipped, unwanted
from doctor.support.optional import MissingPackage, need

MAX_COPIED = 4 << 30
"""Bytes copied in all."""
_MAX_FILE_NAME = 200
"""Characters of a path component; file systems allow 255 bytes."""
_ARCHIVE = re.compile(r"(?i)\.(?:zip|tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst))$")
_URL = re.compile(r"[a-z][a-z0-9+.-]+(?:::[^/]*)?://")


def is_archive(path: Path) -> bool:
    """Whether the name is that of a tar (compressed or not) or a zip."""
    return _ARCHIVE.search(path.name) is not None


def is_url(path: str) -> bool:
    """Whether it is a URL like `s3://bucket/run` (a Windows drive has one letter)."""
    return _URL.match(path) is not None


def unpack(path: Path, skipped: Skipped) -> Path:
    """Copy an archive's regular files that may be readable to a temporary folder, whatever paths they claim.

    Of a damaged archive, the files before the damage are copied. Raises DoctorError (3) without zstd's library.
    """
    folder = Path(tempfile.mkdtemp(prefix="lfdoctor-"))
    try:
        _store(folder, _zip(path) if zipfile.is_zipfile(path) else _tar(path), skipped)
    except MissingPackage as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise DoctorError(f"{path}: {error}", NOTHING_TO_READ) from error
    except Exception as error:  # a damaged or hostile archive may raise anything; what was copied before is kept
        skipped.note("damaged archive", f"{path}: {error}")
    return folder


def _zip(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as file:
                    yield member.filename, file


def _tar(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with path.open("rb") as raw:
        head = raw.peek(6)[:6]
        stream: Any = _Stream(decompressor(raw, head)) if compression(head) else raw
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isreg() and (file := archive.extractfile(member)) is not None:
                    yield member.name, file


class _Stream:
    """A stream for tarfile: returns as many bytes as asked for, fewer only at the end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def read(self, size: int) -> bytes:
        parts = []
        while size > 0 and (part := self._read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _store(folder: Path, members: Iterable[tuple[str, IO[bytes]]], skipped: Skipped) -> None:
    left, files = MAX_COPIED, FILES
    for name, file in members:
        reason = unwanted(PurePosixPath(name).name)
        if reason is None and (left <= 0 or files <= 0):
            reason = "too many files"
        if reason is not None:
            skipped.note(reason, name)
            continue
        files -= 1
        with _place(folder, name).open("wb") as out:
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                out.write(chunk)
                left -= len(chunk)


def _place(folder: Path, name: str) -> Path:
    """Target of a member: inside the folder, whatever its name."""
    parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
    safe = [re.sub(r'[<>:"|?*\x00-\x1f]', "_", part)[:_MAX_FILE_NAME] for part in parts] or ["file"]
    place = folder.joinpath(*safe[-DEPTH - 1 :])
    place.parent.mkdir(parents=True, exist_ok=True)
    return place if not place.exists() else place.with_name(f"{len(list(place.parent.iterdir()))}-{place.name}")


def fetch(url: str, skipped: Skipped) -> Path:
    """Copy the files of a URL to a temporary folder, with fsspec. Raises DoctorError (3) if that fails."""
    fsspec = need("fsspec", "remote", f"{url}: reading from there", NOTHING_TO_READ)
    folder = Path(tempfile.mkdtemp(prefix="lfdoctor-"))
    try:
        _copy(fsspec, url, folder, skipped)
    except Exception as error:  # every storage has errors of its own, also for a missing library
        shutil.rmtree(folder, ignore_errors=True)
        raise DoctorError(f"{url}: cannot be read: {type(error).__name__}: {error}", NOTHING_TO_READ) from error
    return folder


def _copy(fsspec: Any, url: str, folder: Path, skipped: Skipped) -> None:
    storage, root = fsspec.core.url_to_fs(url)
    found = storage.find(root, maxdepth=DEPTH + 1, detail=True) if storage.isdir(root) else {root: storage.info(root)}
    left = MAX_COPIED
    for name, details in sorted(found.items())[:FILES]:
        relative = name.removeprefix(root).lstrip("/") or PurePosixPath(name).name
        reason = unwanted(PurePosixPath(name).name) if name != root else None
        size = details.get("size") or 0
        if reason is not None or size > left:
            skipped.note(reason or "too large", name)
            continue
        left -= size
        storage.get_file(name, str(_place(folder, relative)))
