"""MLflow: a run's folder below `mlruns/` (file store), and the database `mlflow.db` that MLflow 3 writes by default.

File store: `mlruns/EXPERIMENT/RUN/meta.yaml`, `params/NAME` (the value as text) and `metrics/NAME` (lines of `time value step`, the time in
milliseconds; mlflow/store/tracking/file_store.py). Database: tables runs, params and metrics (mlflow/store/tracking/dbmodels/models.py).
Checked against files that MLflow 3.17 wrote. The names are those of transformers' MLflowCallback, which logs without a prefix.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from doctor.core.events import MAX_STEP, ConfigSeen, Event
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.file import File, decode
from doctor.readers.formats import sqlite
from doctor.readers.trackers import metric_name, steps_of
from doctor.readers.values import option_value

Point = tuple[int, str, float, float | None]
"""Step, metric, value, time in Unix seconds."""
_MAX_FILES = 2000
"""Params or metrics of a run that are read."""
_MAX_PARAM = 6000
"""Characters of a value: MLflow's own bound (mlflow/utils/validation.py MAX_PARAM_VAL_LENGTH)."""
_MAX_METRIC = 64 << 20
"""Bytes of one metric's file."""


class MlflowRun(ReaderBase):
    """The folder of one run, found by its meta.yaml."""

    kind = "mlflow"
    lane: Lane = "metrics"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name == "meta.yaml" and (not head or (b"run_id:" in head and b"artifact_uri:" in head))

    def configs(self, file: File) -> Iterator[Event]:
        texts = ((path.name, _text(path, _MAX_PARAM)) for path in _files(file.path.parent / "params"))
        yield from _options(texts, file)

    def read(self, file: File, context: Context) -> Iterator[Event]:
        folder = file.path.parent / "metrics"
        points = [point for path in _files(folder) for point in _lines(path, path.relative_to(folder).as_posix(), file)]
        yield from steps_of(sorted(points, key=_order), file)


class MlflowDatabase(ReaderBase):
    """A database of runs: the newest one that was not deleted is read."""

    kind = "mlflow"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name.startswith("mlflow") and path.suffix in (".db", ".sqlite") and (not head or head.startswith(sqlite.MAGIC))

    def configs(self, file: File) -> Iterator[Event]:
        query = "SELECT key, value FROM params WHERE run_uuid = ? LIMIT ?"
        yield from _options(((str(key), str(value)) for key, value in _of_newest(file, query)), file)

    def read(self, file: File, context: Context) -> Iterator[Event]:
        points = [
            (step, metric_name(str(key)), math.nan if is_nan else float(value), stamp / 1000)
            for key, value, stamp, step, is_nan in _of_newest(
                file, "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ?"
            )
            if 0 <= step < MAX_STEP
        ]
        yield from steps_of(sorted(points, key=_order), file)


def belongs_to_run(path: Path) -> bool:
    """Whether a file is a value of a run's folder, which is read with its meta.yaml: no file of its own."""
    parts = [parent for parent in (path.parent, path.parent.parent) if parent.name in ("params", "metrics", "tags")]
    return any((part.parent / "meta.yaml").is_file() for part in parts)


def _order(point: Point) -> tuple[float, int]:
    """By time, so that a resumed run's steps come again as they came, then by step."""
    return (math.floor(point[3] or 0), point[0])


def _of_newest(file: File, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query for the newest run. `query` has a place for its id, and one for a limit where it says so."""
    try:
        with sqlite.opened(file.path) as connection:
            if not {"run_uuid", "start_time"} <= sqlite.columns(connection, "runs"):
                file.source.problem("a database without MLflow's tables: not read")
                return []
            runs = list(
                sqlite.rows(connection, "SELECT run_uuid, name FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC")
            )
            if not runs:
                return []
            if len(runs) > 1:
                file.source.problem(f"holds {len(runs)} runs: the newest, {runs[0][1]}, was read")
            values = [runs[0][0], *([_MAX_FILES] if "LIMIT" in query else [])]
            return list(sqlite.rows(connection, query, values))
    except (sqlite.Unreadable, sqlite3.Error) as error:
        file.source.problem(str(error))
        return []


def _options(texts: Iterable[tuple[str, str]], file: File) -> Iterator[Event]:
    values = {name: option_value(text) for name, text in texts if len(text) <= _MAX_PARAM}
    values = {name: value for name, value in values.items() if value is not None and value != "None"}
    if values:
        yield ConfigSeen(where=file.where(), values=values, origin="events")


def _files(folder: Path) -> list[Path]:
    """The files below a folder of a run: MLflow makes a folder of what stands before a `/` in a name."""
    return sorted(islice((path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()), _MAX_FILES))


def _text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as opened:
            return decode(opened.read(limit + 1))
    except OSError:
        return ""


def _lines(path: Path, name: str, file: File) -> Iterator[Point]:
    """The points of one metric; a line that is none is a problem of the run's source."""
    for line in _text(path, _MAX_METRIC).splitlines():
        parts = line.split()
        try:
            stamp, value, step = float(parts[0]), float(parts[1]), int(parts[2])
        except (ValueError, IndexError):
            file.source.problem(f"metrics/{name}: a line that is no point was left out")
            continue
        if 0 <= step < MAX_STEP and math.isfinite(stamp):
            yield step, metric_name(name), value, stamp / 1000
