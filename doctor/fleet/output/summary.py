"""The summary of a scan: states, causes, clusters of unknown failures, what separates failed runs, histories of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.config.options import effective
from doctor.errors import DoctorError
from doctor.fleet.attribution import changes, history
from doctor.fleet.attribution.changes import Attribution, Trial
from doctor.fleet.attribution.history import JobAttempt
from doctor.fleet.output import clusters
from doctor.fleet.output.clusters import Cluster, Failure
from doctor.fleet.scan.records import RunRecord
from doctor.fleet.scan.store import Store
from doctor.support.decoding import from_json

MAX_ATTEMPTS = 50
"""Latest attempts of a job that are compared."""
MAX_JOBS, MAX_SWEEPS = 200, 50
"""Jobs and sweeps that are listed, the largest first."""
KNOWN_SHARE = 0.9
"""Share of the runs that must report a fact of the environment for it to be compared."""
MIN_SWEEP_RUNS = 8
"""Fewer runs are no sweep: even a perfect split of seven may be chance."""


class Cause(msgspec.Struct, frozen=True):
    """A known cause, the number of runs that failed of it, and one of them."""

    cause: str
    title: str
    count: int
    example: str


class Sweep(msgspec.Struct, frozen=True):
    """Runs in one folder, and what separates the failed ones."""

    folder: str
    runs: int
    explanation: Attribution


class Job(msgspec.Struct, frozen=True):
    """A job and its attempts in the order they ended; `next` is the patch of the last report."""

    name: str
    attempts: list[JobAttempt]
    next: list[str] = []


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """`states` counts runs: failed, sound, unclear, unreadable, too_slow, too_large, crashed."""

    format: int = 1
    runs: int
    states: dict[str, int]
    causes: list[Cause] = []
    clusters: list[Cluster] = []
    sweeps: list[Sweep] = []
    jobs: list[Job] = []
    left_out: int = 0


def of(store: Store) -> Summary:
    """The summary of what the store holds, in memory that does not grow with the number of runs."""
    states = dict(store.rows("SELECT state, COUNT(*) FROM runs WHERE here = 1 AND done = 1 GROUP BY state ORDER BY 2 DESC, 1"))
    left_out = states.pop("", 0)
    return Summary(
        runs=sum(states.values()),
        states=states,
        causes=_causes(store),
        clusters=clusters.cluster(_unknown(store)),
        sweeps=_sweeps(store),
        jobs=_jobs(store),
        left_out=left_out,
    )


def read(table: Path) -> Summary:
    """The summary that belongs to the table of a scan. Raises DoctorError if there is none."""
    path = table.with_name(table.name.removesuffix(".parquet") + ".summary.json")
    try:
        return from_json(path.read_bytes(), Summary)
    except (OSError, msgspec.MsgspecError) as error:
        raise DoctorError(f"{path}: no summary of a scan: {error}") from error


def attempts_of(store: Store, job: str) -> list[RunRecord]:
    """The latest attempts of one job."""
    return list(store.records("job = ?", (job,), order="ended DESC, path DESC", limit=MAX_ATTEMPTS))


def _causes(store: Store) -> list[Cause]:
    query = (
        "SELECT cause, COUNT(*), MIN(path) FROM runs WHERE here = 1 AND state = 'failed' AND cause IS NOT NULL AND cause != 'unknown' "
        "GROUP BY cause ORDER BY 2 DESC, 1"
    )
    out = []
    for cause, count, path in store.rows(query):
        record = next(store.records("path = ?", (path,)))
        out.append(Cause(cause, record.title or "", count, record.path))
    return out


def _unknown(store: Store) -> list[Failure]:
    """Failures without a known cause, one per fingerprint; those without evidence have none."""
    query = (
        "SELECT fingerprint, COUNT(*), MIN(path) FROM runs WHERE here = 1 AND state = 'failed' AND fingerprint IS NOT NULL "
        "AND (cause IS NULL OR cause = 'unknown') GROUP BY fingerprint ORDER BY 2 DESC, 1 LIMIT ?"
    )
    out = []
    for name, count, path in store.rows(query, (clusters.MAX_FAILURES,)):
        record = next(store.records("path = ?", (path,)))
        runs = [
            row[0]
            for row in store.rows(
                "SELECT path FROM runs WHERE here = 1 AND fingerprint = ? ORDER BY path LIMIT ?", (name, clusters.MAX_RUNS)
            )
        ]
        out.append(Failure(name, record.evidence or record.title or "", count, runs))
    return out


def _sweeps(store: Store) -> list[Sweep]:
    query = (
        "SELECT sweep, COUNT(*) FROM runs WHERE here = 1 AND state IN ('failed', 'sound') GROUP BY sweep "
        "HAVING COUNT(*) >= ? AND SUM(state = 'failed') > 0 AND SUM(state = 'sound') > 0 ORDER BY 2 DESC, 1 LIMIT ?"
    )
    out = []
    for folder, count in store.rows(query, (MIN_SWEEP_RUNS, MAX_SWEEPS)):
        step = max(1, count // changes.MAX_RUNS)
        chosen = (
            record for i, record in enumerate(store.records("sweep = ? AND state IN ('failed', 'sound')", (folder,))) if i % step == 0
        )
        out.append(Sweep(folder, count, changes.explain(trials(chosen))))
    return out


def trials(records: Iterable[RunRecord]) -> list[Trial]:
    """Runs as the comparison sees them: what any of them was given, as it took effect in each, and facts of the surroundings."""
    rows = [(record.path, bool(record.failed), record.config, record.environment) for record in records]
    given = {key for _, _, config, _ in rows for key in config} - history.NAMES_OF_PLACES
    around = _usual([environment for *_, environment in rows])
    out = []
    for path, failed, config, environment in rows:
        every = effective(config, environment)
        options = {key: every[key] for key in given if every.get(key) is not None}
        out.append(Trial(path, failed, {**options, **{key: environment.get(key, usual) for key, usual in around.items()}}))
    return out


def _usual(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts that nearly all runs report, with their most frequent value, which stands in for the runs that do not.

    A run that fails early reports less than one that ends well: a fact that many lack would seem to explain the failures.
    """
    seen: dict[str, Counter[Any]] = {}
    for environment in environments:
        for key, value in environment.items():
            if isinstance(value, str | int | float | bool):
                seen.setdefault(key, Counter())[value] += 1
    return {key: counts.most_common(1)[0][0] for key, counts in sorted(seen.items()) if counts.total() >= KNOWN_SHARE * len(environments)}


def _jobs(store: Store) -> list[Job]:
    query = (
        "SELECT job, COUNT(*) FROM runs WHERE here = 1 AND done = 1 AND job IS NOT NULL GROUP BY job "
        "HAVING COUNT(*) > 1 ORDER BY MAX(ended) DESC, job LIMIT ?"
    )
    out = []
    for job, _ in store.rows(query, (MAX_JOBS,)):
        group = attempts_of(store, job)
        if group:
            out.append(Job(job, history.attempts(group), group[0].patch if group[0].failed else []))
    return out
