"""MLflow: tags of the run through MLflow's client, for the file store and for the database alike; the user's description stays.

A newer MLflow adds its tables to an older one's database when it opens it (mlflow/store/tracking/sqlalchemy_store.py, SqlAlchemyStore):
a copy is opened first, and where that changes the copy's tables, the database is left alone.
https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from doctor.readers.formats import sqlite
from doctor.report.model import SourceView
from doctor.reporters.trackers.note import Note
from doctor.reporters.trackers.target import Target, library, refused
from doctor.support import shell


def target(sources: list[SourceView]) -> Target:
    """The run of the file store (`mlruns/EXPERIMENT/RUN/meta.yaml`), or the newest one of the database, which is the one that was read."""
    path = Path(sources[-1].path).absolute()
    if path.name == "meta.yaml":
        return Target("MLflow", str(path.parent), "tags", lambda note: _tag_in_store(note, path.parent))
    return Target("MLflow", str(path), "tags", lambda note: _tag_in_database(note, path))


def _tag_in_store(note: Note, run: Path) -> None:
    client = library("mlflow", "mlflow").MlflowClient(tracking_uri=run.parents[1].as_uri())
    _tag(note, client, run.name)


def _tag_in_database(note: Note, path: Path) -> None:
    mlflow, uri = library("mlflow", "mlflow"), f"sqlite:///{path}"
    if _would_change(mlflow, path):
        raise refused("other_mlflow", command=f"mlflow db upgrade {shell.word(uri)}")
    client = mlflow.MlflowClient(tracking_uri=uri)
    _tag(note, client, _newest(client))


def _would_change(mlflow: Any, path: Path) -> bool:
    """Whether opening the database would change its tables."""
    with tempfile.TemporaryDirectory(prefix="lfdoctor-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / path.name
        for ending in ("", "-wal"):
            if (part := path.with_name(path.name + ending)).is_file():
                shutil.copyfile(part, copy.with_name(copy.name + ending))
        before = _tables(copy)
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{copy}").search_experiments(max_results=1)
        return _tables(copy) != before


def _tables(path: Path) -> list[tuple[Any, ...]]:
    with sqlite.opened(path) as connection:
        return sorted(sqlite.rows(connection, "SELECT name, sql FROM sqlite_master WHERE type = 'table'"))


def _tag(note: Note, client: Any, run_id: str) -> None:
    for name, value in note.entries.items():
        client.set_tag(run_id, name, value)


def _newest(client: Any) -> str:
    """The id of the run that was started last in any experiment."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
    if not runs:
        raise refused("no_run")
    return str(runs[0].info.run_id)
