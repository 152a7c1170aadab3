"""Compares a few runs: what differs, which difference explains the failures, and their learning curves on one scale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.diagnosis.pipeline import run_analysis
from doctor.diagnosis.tools import Tools
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.fleet.attribution import changes, history
from doctor.fleet.attribution.changes import Attribution
from doctor.fleet.attribution.curves import LossCurve
from doctor.fleet.output import summary, tables
from doctor.fleet.scan.discovery import FoundRun, discover
from doctor.fleet.scan.records import RunRecord, record_of
from doctor.planner.plan import PreviousAttempt


class Difference(msgspec.Struct, frozen=True):
    """A key whose value differs between runs. `named`: the diagnosis of a failed run proposes to change it."""

    key: str
    values: list[Any]
    named: bool


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The runs in the given order; differences with the likeliest explanation first."""

    format: int = 1
    runs: list[RunRecord]
    differences: list[Difference]
    explanation: Attribution

    def curves(self) -> list[LossCurve]:
        """The runs' learning curves."""
        return [LossCurve(run.path, *run.curve, failed=bool(run.failed)) for run in self.runs]


def compare(paths: Sequence[str], *, lang: str = "en") -> Compared:
    """Compare runs: folders or logs, which are analyzed, and tables of a scan (.parquet). Raises DoctorError for fewer than two."""
    tools = Tools.load()
    runs = [record for path in paths for record in _records(path, lang, tools)]
    if len(runs) < 2:
        raise DoctorError(f"{len(runs)} run found; a comparison needs two", NOTHING_TO_READ)
    judged = summary.trials([run for run in runs if run.failed is not None])
    explanation = changes.explain(judged)
    return Compared(runs=runs, differences=_differences(runs, explanation), explanation=explanation)


def tried_before(table: Path, paths: Sequence[str], cause: str | None) -> list[PreviousAttempt]:
    """Other attempts of this job in a scan's table that failed of the same cause. Raises DoctorError if it is no such table."""
    here = Path(paths[0]).resolve()
    runs = [_of_row(row) for row in tables.read(table)]
    mine = next((run for run in runs if Path(run.path).resolve() == here), None)
    job = mine.job if mine else history.job_name(str(here), {})
    this = RunRecord(path=mine.path if mine else str(here), cause=cause)
    return history.previous_attempts(this, [run for run in runs if run.job == job])


def _records(path: str, lang: str, tools: Tools) -> list[RunRecord]:
    if path.endswith(".parquet"):
        return [_of_row(row) for row in tables.read(Path(path))]
    found = _found(path)
    return [record_of(found, run_analysis(found.paths, lang=lang, tools=tools))]


def _found(path: str) -> FoundRun:
    """The run at a path: a folder as a whole, or one file."""
    if not Path(path).exists():
        raise DoctorError(f"{path}: no such file or folder", NOTHING_TO_READ)
    runs = list(discover([path])) if Path(path).is_dir() else []
    ended = runs[0].ended if len(runs) == 1 else Path(path).stat().st_mtime
    files = runs[0].files if len(runs) == 1 else []
    return FoundRun(path, [path], files, "", sum(size for _, size in files), ended)


def _of_row(row: dict[str, Any]) -> RunRecord:
    """A record with what a comparison needs, from a row of the table of runs."""
    names = {field.name for field in msgspec.structs.fields(RunRecord)} & row.keys() - {"config", "environment", "started", "ended"}
    values = {name: row[name] for name in names if row[name] is not None}
    dates = {name: row[name].timestamp() for name in ("started", "ended") if row[name] is not None}
    curve = (row["loss_steps"] or [], row["loss_values"] or [])
    proposed = [item.lstrip("-").partition("=")[0] for item in row["patch"] or []]
    record = RunRecord(
        **values, **dates, curve=curve, proposed=proposed, config=json.loads(row["config"]), environment=json.loads(row["environment"])
    )
    if row["failed"] and record.status not in ("failed", "interrupted"):  # a finding is an error that did not end the run
        return msgspec.structs.replace(record, status="failed")
    return record


def _differences(runs: Sequence[RunRecord], explanation: Attribution) -> list[Difference]:
    """All differing keys: those that explain the failures first, then those that a diagnosis names, then by how they separate the runs."""
    trials = summary.trials(runs)
    proposed = {key for run in runs if run.failed for key in run.proposed}
    order = {candidate.key: (place, candidate.guilty) for place, candidate in enumerate(explanation.suspects)}
    out = []
    for key in sorted({key for trial in trials for key in trial.values}):
        values = [trial.values.get(key) for trial in trials]
        if any(value != values[0] for value in values):
            out.append(Difference(key, values, key in proposed))

    def rank(difference: Difference) -> tuple[bool, bool, int, str]:
        place, called = order.get(difference.key, (len(order), False))
        return not called, not difference.named, place, difference.key

    return sorted(out, key=rank)
