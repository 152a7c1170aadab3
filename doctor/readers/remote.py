"""What does not lie about as plain files: an archive of a run, a bucket. The files worth a look are brought to a temporary folder first."""

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
from doctor.readers.base import CHUNK, packed, unpacking
from doctor.readers.discovery import DEPTH, FILES, Skipped, unwanted
from doctor.support.optional import MissingPackage, need

LARGEST = 4 << 30
"""So many bytes are brought in all."""
_ARCHIVE = re.compile(r"(?i)\.(?:zip|tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst))$")
_URL = re.compile(r"[a-z][a-z0-9+.-]+(?:::[^/]*)?://")


def is_archive(path: Path) -> bool:
    """By its name: a tar, compressed or not, or a zip."""
    return _ARCHIVE.search(path.name) is not None


def is_url(path: str) -> bool:
    """`s3://bucket/run` and the like (a Windows drive has one letter)."""
    return _URL.match(path) is not None


def unpack(path: Path, skipped: Skipped) -> Path:
    """A temporary folder with the archive's files that may tell something: regular ones only, wherever their names point to.

    Raises DoctorError (3) where it cannot be read; of a torn archive the files before the tear are there.
    """
    folder = Path(tempfile.mkdtemp(prefix="lfdoctor-"))
    try:
        _store(folder, _zip(path) if zipfile.is_zipfile(path) else _tar(path), skipped)
    except MissingPackage as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise DoctorError(f"{path}: {error}", NOTHING_TO_READ) from error
    except Exception as error:  # a damaged or hostile archive may raise anything; what was unpacked before stays
        skipped.note("damaged archive", f"{path}: {error}")
    return folder


def _zip(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            if not one.is_dir():
                with archive.open(one) as file:
                    yield one.filename, file


def _tar(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with path.open("rb") as raw:
        head = raw.peek(6)[:6]
        stream: Any = _Stream(unpacking(raw, head)) if packed(head) else raw
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for one in archive:
                if one.isreg() and (file := archive.extractfile(one)) is not None:
                    yield one.name, file


class _Stream:
    """What tarfile reads: so many bytes at a time, fewer at the end only."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def read(self, size: int) -> bytes:
        parts = []
        while size > 0 and (part := self._read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _store(folder: Path, members: Iterable[tuple[str, IO[bytes]]], skipped: Skipped) -> None:
    left, files = LARGEST, FILES
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
    """Where a member goes: inside the folder whatever its name says."""
    parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
    safe = [re.sub(r'[<>:"|?*\x00-\x1f]', "_", part)[:200] for part in parts] or ["file"]
    place = folder.joinpath(*safe[-DEPTH - 1 :])
    place.parent.mkdir(parents=True, exist_ok=True)
    return place if not place.exists() else place.with_name(f"{len(list(place.parent.iterdir()))}-{place.name}")


def fetch(url: str, skipped: Skipped) -> Path:
    """A temporary folder with what a URL holds, by way of fsspec. Raises DoctorError (3) where that is not possible."""
    fsspec = need("fsspec", "remote", f"{url}: reading from there", NOTHING_TO_READ)
    folder = Path(tempfile.mkdtemp(prefix="lfdoctor-"))
    try:
        _bring(fsspec, url, folder, skipped)
    except Exception as error:  # every storage has errors of its own, also for a missing library
        shutil.rmtree(folder, ignore_errors=True)
        raise DoctorError(f"{url}: cannot be read: {type(error).__name__}: {error}", NOTHING_TO_READ) from error
    return folder


def _bring(fsspec: Any, url: str, folder: Path, skipped: Skipped) -> None:
    storage, root = fsspec.core.url_to_fs(url)
    found = storage.find(root, maxdepth=DEPTH + 1, detail=True) if storage.isdir(root) else {root: storage.info(root)}
    left = LARGEST
    for name, details in sorted(found.items())[:FILES]:
        relative = name.removeprefix(root).lstrip("/") or PurePosixPath(name).name
        reason = unwanted(PurePosixPath(name).name) if name != root else None
        size = details.get("size") or 0
        if reason is not None or size > left:
            skipped.note(reason or "too large", name)
            continue
        left -= size
        storage.get_file(name, str(_place(folder, relative)))
