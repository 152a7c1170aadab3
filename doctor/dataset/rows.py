"""Rows of a data set's files, one at a time, each with its line: memory is bounded by the longest row, whatever the file's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from doctor.dataset import json_rows, table_rows
from doctor.dataset.records import Row, Seen, untold
from doctor.readers.file import Progress

_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstandard", b"\xfd7zXZ": "xz"}

Reader = Callable[[Path, Seen], Iterator[Row]]


def read_rows(files: tuple[Path, ...], kind: str, progress: Progress | None = None) -> Iterator[Row]:
    """All rows of the files, in order. A file that cannot be read any further gives one row with a problem and ends there.

    `progress` is told now and then which file, how many bytes more, of how many.
    """
    for file in files:
        packed = _packing(file)
        if packed:
            yield Row(file, 1, 0, None, "compressed", packed)
            continue
        if kind in ("json", "csv", "text") and (encoding := _wide_encoding(file)):
            yield Row(file, 1, 0, None, "not_utf8", encoding)
            continue
        try:
            yield from _reader(kind)(file, _telling(file, progress) if progress else untold)
        except (OSError, UnicodeError, MemoryError) as error:
            yield Row(file, 0, 0, None, "unreadable_file", str(error)[:200])


def _telling(file: Path, progress: Progress) -> Seen:
    """Positions as the steps from one to the next."""
    last, size = 0, file.stat().st_size

    def seen(position: int) -> None:
        nonlocal last
        progress(str(file), max(0, position - last), size)
        last = position

    return seen


def _wide_encoding(file: Path) -> str:
    """UTF-16 or UTF-32 by its byte order mark: every line of such a file would be a broken one."""
    head = _head(file)
    marks = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
    return next((name for mark, name in marks.items() if head.startswith(mark)), "")


def _packing(file: Path) -> str:
    head = _head(file)
    return next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(6)
    except OSError:
        return b""


def _reader(kind: str) -> Reader:
    readers: dict[str, Reader] = {
        "json": json_rows.read,
        "csv": table_rows.read_csv,
        "text": table_rows.read_text,
        "parquet": table_rows.read_parquet,
        "arrow": table_rows.read_arrow,
    }
    return readers[kind]
