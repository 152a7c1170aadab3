"""Trackio: the database of a project (`~/.cache/huggingface/trackio/PROJECT.db`), of which the newest run is read.

Tables metrics (run_name, step, timestamp, metrics as JSON) and configs (trackio/sqlite_storage.py; newer ones have a run_id). Trackio
counts its own calls; transformers' TrackioCallback logs the training's step beside them, as W&B's does. Checked against Trackio 0.43.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from doctor.core.events import MAX_STEP, ConfigSeen, Event, Step
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.file import File, Source
from doctor.readers.formats import sqlite
from doctor.readers.trackers import metric_name
from doctor.readers.values import number

_STEP = "train/global_step"


class Trackio(ReaderBase):
    """Every logged row of the newest run, at the step of the training where that was logged."""

    kind = "trackio"
    lane: Lane = "metrics"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".db" and head.startswith(sqlite.MAGIC) and (b"run_name" in head or path.parent.name == "trackio")

    def configs(self, file: File) -> Iterator[Event]:
        rows = _of_newest(file, "configs", "config")
        values = _object(rows[-1][0]) if rows else {}
        options = {name: value for name, value in values.items() if value is not None and not name.startswith("_")}
        if options:
            yield ConfigSeen(where=file.where(), values=options, origin="events")

    def read(self, file: File, context: Context) -> Iterator[Event]:
        for count, stamp, text in _of_newest(file, "metrics", "step, timestamp, metrics"):
            values = _object(text)
            step = values.get(_STEP, count)
            metrics = {
                metric_name(name): figure for name, value in values.items() if name != _STEP and (figure := number(value)) is not None
            }
            if type(step) is int and 0 <= step < MAX_STEP and metrics:
                file.source.records += 1
                yield Step(where=file.where(step=step), step=step, metrics=metrics, time=_time(stamp))


def of_other_projects(paths: Sequence[Path]) -> list[Path]:
    """Of several projects' databases in Trackio's folder all but the one that changed last: each holds runs of its own."""
    return sorted(paths, key=_changed)[:-1]


def newest_run(path: Path) -> str:
    """The name of the run that is read from a database; empty without one."""
    rows = _of_newest(File(path, str(path), Source(str(path), Trackio.kind, 0)), "metrics", "run_name")
    return str(rows[-1][0]) if rows else ""


def _changed(path: Path) -> int:
    """The newest of a database and its write-ahead log, nanoseconds since 1970; 0 if unknown."""
    files = [file for file in (path, path.with_name(path.name + "-wal")) if file.is_file()]
    return max((file.stat().st_mtime_ns for file in files), default=0)


def _of_newest(file: File, table: str, wanted: str) -> list[tuple[Any, ...]]:
    """The newest run's rows of a table in the order of writing. A project's runs share the tables; the last row's run is the newest."""
    try:
        with sqlite.opened(file.path) as connection:
            names = sqlite.columns(connection, table)
            if "run_name" not in names:
                file.source.problem(f"a database without Trackio's table `{table}`: not read")
                return []
            run = "run_id" if "run_id" in names else "run_name"
            runs = list(sqlite.rows(connection, f"SELECT {run}, run_name FROM {table} GROUP BY {run} ORDER BY MAX(id) DESC"))  # noqa: S608 (our own words)
            if len(runs) > 1:
                file.source.problem(f"holds {len(runs)} runs: the newest, {runs[0][1]}, was read")
            query = f"SELECT {wanted} FROM {table} WHERE {run} = ? ORDER BY id"  # noqa: S608 (our own words)
            return list(sqlite.rows(connection, query, [runs[0][0]])) if runs else []
    except (sqlite.Unreadable, sqlite3.Error) as error:
        file.source.problem(str(error))
        return []


def _object(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _time(text: Any) -> float | None:
    """Unix seconds of an ISO date with a zone; None without one."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None
