"""An SQLite file with the state and record of every run, so that the coordinator holds only a few in memory.

- Cache: an unchanged run keeps its record.
- Journal: an interrupted scan continues.
- Order: tables are sorted by path, whatever engine did the work in whatever order.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.fleet.scan.discovery import FoundRun
from doctor.fleet.scan.records import RunRecord
from doctor.support.decoding import unpack

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS runs (
  path TEXT PRIMARY KEY, signature TEXT, found BLOB, record BLOB, done INTEGER, here INTEGER,
  job TEXT, state TEXT, sweep TEXT, tried TEXT, ended REAL, cause TEXT, fingerprint TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs ON runs (here, job);
CREATE INDEX IF NOT EXISTS sweeps ON runs (here, sweep);
CREATE INDEX IF NOT EXISTS waiting ON runs (path) WHERE done = 0;
"""
COMMIT_EVERY = 200
"""Records between two commits: the most that are analyzed again after a power cut."""


class Store:
    """Open for one scan. `version` names everything besides a run's files that its record depends on; another version clears the store."""

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._since = 0
        self.db = self._open()
        if self.about("version") != version:
            self.db.execute("DELETE FROM runs")
            self.db.execute("INSERT OR REPLACE INTO about VALUES ('version', ?)", (version,))
        self.db.execute("UPDATE runs SET here = 0")
        self.db.commit()

    def _open(self) -> sqlite3.Connection:
        """Open the file; one that is no database of ours is replaced."""
        for _ in range(2):
            db = sqlite3.connect(self.path, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                db.executescript(_SCHEMA)
                db.execute("SELECT fingerprint FROM runs LIMIT 1")
            except sqlite3.DatabaseError:
                db.close()
                for old in self.path.parent.glob(self.path.name + "*"):
                    old.unlink()
            else:
                return db
        return sqlite3.connect(self.path, check_same_thread=False)

    def about(self, name: str) -> str | None:
        """The stored value of a setting."""
        row = self.db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def found(self, found: FoundRun) -> bool:
        """Record that a run exists; whether it must be analyzed (False: its record is still valid)."""
        with self._lock:
            row = self.db.execute("SELECT signature, done FROM runs WHERE path = ?", (found.path,)).fetchone()
            if row is not None and row[0] == found.signature and row[1]:
                self.db.execute("UPDATE runs SET here = 1 WHERE path = ?", (found.path,))
                fresh = False
            else:
                values = (found.path, found.signature, msgspec.msgpack.encode(found), _sweep(found.path))
                self.db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, NULL, 0, 1, NULL, NULL, ?, '', NULL, NULL, NULL)", values)
                fresh = True
            self._count()
        return fresh

    def waiting(self, after: str = "") -> Iterator[FoundRun]:
        """The runs that have no record yet, by path; records may be put meanwhile."""
        while True:
            with self._lock:
                query = "SELECT path, found FROM runs WHERE done = 0 AND here = 1 AND path > ? ORDER BY path LIMIT 256"
                rows = self.db.execute(query, (after,)).fetchall()
            if not rows:
                return
            yield from (unpack(blob, FoundRun) for _, blob in rows)
            after = rows[-1][0]

    def put(self, path: str, record: bytes, previous_attempts: str = "") -> RunRecord | None:
        """Store a record (msgpack); returns it, None if it is no run. `previous_attempts` is a digest of those its patch considered."""
        decoded = unpack(record, RunRecord | None)
        if decoded is not None:
            record = msgspec.msgpack.encode(msgspec.structs.replace(decoded, page=None))
        with self._lock:
            self.db.execute(
                "UPDATE runs SET record = ?, done = 1, job = ?, state = ?, tried = ?, ended = ?, cause = ?, fingerprint = ? WHERE path = ?",
                (record, *_columns(decoded, previous_attempts), path),
            )
            self._count()
        return decoded

    def forget(self, outcomes: tuple[str, ...]) -> None:
        """Analyze runs with these outcomes again: the limits have changed."""
        with self._lock:
            self.db.execute(f"UPDATE runs SET done = 0 WHERE state IN ({','.join('?' * len(outcomes))})", outcomes)  # noqa: S608

    def settings(self, name: str, value: str) -> bool:
        """Store a setting; whether it had another value before."""
        before = self.about(name)
        with self._lock:
            self.db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))
        return before is not None and before != value

    def digest(self, more: str) -> str:
        """A digest of all runs of this scan (files, previous attempts, states) and `more`."""
        digest = hashlib.blake2b(more.encode("utf-8", "surrogateescape"), digest_size=16)
        with self._lock:
            for row in self.db.execute("SELECT path, signature, tried, state FROM runs WHERE here = 1 ORDER BY path"):
                digest.update(repr(row).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _count(self) -> None:
        self._since += 1
        if self._since >= COMMIT_EVERY:
            self.db.commit()
            self._since = 0

    def commit(self) -> None:
        """Commit everything so far."""
        with self._lock:
            self.db.commit()
            self._since = 0

    def records(self, where: str = "1", values: tuple[object, ...] = (), order: str = "path", limit: int = -1) -> Iterator[RunRecord]:
        """The records of this scan, read incrementally. `where` and `order` are SQL of ours, never a user's text."""
        cursor = self.db.execute(
            f"SELECT record FROM runs WHERE here = 1 AND done = 1 AND state != '' AND {where} ORDER BY {order} LIMIT ?",  # noqa: S608
            (*values, limit),
        )
        for (blob,) in cursor:
            yield unpack(blob, RunRecord)

    def rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a query of ours over `runs`."""
        return self.db.execute(query, values).fetchall()

    def found_of(self, path: str) -> FoundRun:
        """The FoundRun of a path."""
        return unpack(self.rows("SELECT found FROM runs WHERE path = ?", (path,))[0][0], FoundRun)

    def close(self) -> None:
        """Commit and close the file."""
        self.commit()
        self.db.close()


def _sweep(path: str) -> str:
    """The folder that a run shares with its sweep."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[0]


def _columns(record: RunRecord | None, previous_attempts: str) -> tuple[object, ...]:
    """The columns that queries use, besides the record."""
    if record is None:
        return (None, "", previous_attempts, None, None, None)
    return (record.job, _state(record), previous_attempts, record.ended, record.cause, record.fingerprint)


def _state(record: RunRecord | None) -> str:
    """failed, sound, unclear, or why it could not be analyzed; empty for no run."""
    if record is None:
        return ""
    if record.outcome != "analyzed":
        return record.outcome
    return {True: "failed", False: "sound", None: "unclear"}[record.failed]
