"""SQLite databases of trackers, read without touching them: no lock, no journal, no `-shm` file appears beside the user's file."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

MAGIC = b"SQLite format 3"
"""The first bytes of every database file (sqlite.org/fileformat.html)."""
MAX_BYTES = 1 << 30
"""Bytes of a database that is copied; a tracker's holds some hundred bytes a point."""


class Unreadable(Exception):
    """Why a database cannot be read, in words for the user."""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy of the database and of its write-ahead log, which holds what a running training wrote last.

    Raises Unreadable.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unreadable(f"larger than {MAX_BYTES >> 20} MiB: not read")
        with tempfile.TemporaryDirectory(prefix="lfdoctor-") as folder:
            copy = Path(folder) / "copy.db"
            for ending in ("", "-wal"):
                source = path.with_name(path.name + ending)
                if source.is_file():
                    shutil.copyfile(source, copy.with_name(copy.name + ending))
            with closing(sqlite3.connect(copy)) as connection:
                yield connection
    except (OSError, sqlite3.Error) as error:
        raise Unreadable(f"damaged, or no database: {error}") from error


def columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """The names of a table's columns; empty without such a table. `table` is one of our own words."""
    return {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}


def rows(connection: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
    """The rows of a query; text that is no UTF-8 is replaced, as everywhere."""
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    yield from connection.execute(query, values)
