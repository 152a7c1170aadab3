"""What a scan says as a whole: how many failed and of what, clusters of unknown failures, guilty changes, histories of jobs."""

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

ATTEMPTS = 50
"""Of one job so many attempts, the latest ones, are looked at."""
JOBS, SWEEPS = 200, 50
"""So many histories of jobs and sweeps are told, the largest ones."""
TOLD_BY = 0.9
"""A fact of the surroundings is compared where so large a part of the runs tell it."""
SWEEP_RUNS = 8
"""Fewer runs are no sweep: even a perfect split of seven could be chance."""


class Cause(msgspec.Struct, frozen=True):
    """A known cause, how many runs it failed, and one of them."""

    cause: str
    title: str
    count: int
    example: str


class Sweep(msgspec.Struct, frozen=True):
    """Runs that lie beside each other, and what separates the failed ones."""

    folder: str
    runs: int
    explanation: Attribution


class Job(msgspec.Struct, frozen=True):
    """A job and its attempts, in the order in which they ended; `next` is what the last report proposes."""

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
    """The summary beside the table of a scan. Raises DoctorError where there is none."""
    path = table.with_name(table.name.removesuffix(".parquet") + ".summary.json")
    try:
        return from_json(path.read_bytes(), Summary)
    except (OSError, msgspec.MsgspecError) as error:
        raise DoctorError(f"{path}: no summary of a scan: {error}") from error


def attempts_of(store: Store, job: str) -> list[RunRecord]:
    """The latest attempts of one job."""
    return list(store.records("job = ?", (job,), order="ended DESC, path DESC", limit=ATTEMPTS))


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
    """The failures without a known cause, one for every fingerprint; a failure without any evidence has none."""
    query = (
        "SELECT fingerprint, COUNT(*), MIN(path) FROM runs WHERE here = 1 AND state = 'failed' AND fingerprint IS NOT NULL "
        "AND (cause IS NULL OR cause = 'unknown') GROUP BY fingerprint ORDER BY 2 DESC, 1 LIMIT ?"
    )
    out = []
    for name, count, path in store.rows(query, (clusters.MOST,)):
        record = next(store.records("path = ?", (path,)))
        runs = [
            row[0]
            for row in store.rows("SELECT path FROM runs WHERE here = 1 AND fingerprint = ? ORDER BY path LIMIT ?", (name, clusters.RUNS))
        ]
        out.append(Failure(name, record.evidence or record.title or "", count, runs))
    return out


def _sweeps(store: Store) -> list[Sweep]:
    query = (
        "SELECT sweep, COUNT(*) FROM runs WHERE here = 1 AND state IN ('failed', 'sound') GROUP BY sweep "
        "HAVING COUNT(*) >= ? AND SUM(state = 'failed') > 0 AND SUM(state = 'sound') > 0 ORDER BY 2 DESC, 1 LIMIT ?"
    )
    out = []
    for folder, count in store.rows(query, (SWEEP_RUNS, SWEEPS)):
        step = max(1, count // changes.MOST)
        chosen = (one for i, one in enumerate(store.records("sweep = ? AND state IN ('failed', 'sound')", (folder,))) if i % step == 0)
        out.append(Sweep(folder, count, changes.explain(trials(chosen))))
    return out


def trials(records: Iterable[RunRecord]) -> list[Trial]:
    """Runs as the comparison sees them: what any of them was given, as it took effect in each, and facts of the surroundings."""
    rows = [(one.path, bool(one.failed), one.config, one.environment) for one in records]
    given = {key for _, _, config, _ in rows for key in config} - history.NAMES_OF_PLACES
    around = _usual([environment for *_, environment in rows])
    out = []
    for path, failed, config, environment in rows:
        every = effective(config, environment)
        options = {key: every[key] for key in given if every.get(key) is not None}
        out.append(Trial(path, failed, {**options, **{key: environment.get(key, usual) for key, usual in around.items()}}))
    return out


def _usual(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts that nearly all runs tell, with their most frequent value (for the few that do not).

    A run that fails early tells less than one that ends well: a fact that many lack would look guilty by its absence.
    """
    seen: dict[str, Counter[Any]] = {}
    for environment in environments:
        for key, value in environment.items():
            if isinstance(value, str | int | float | bool):
                seen.setdefault(key, Counter())[value] += 1
    return {key: counts.most_common(1)[0][0] for key, counts in sorted(seen.items()) if counts.total() >= TOLD_BY * len(environments)}


def _jobs(store: Store) -> list[Job]:
    query = (
        "SELECT job, COUNT(*) FROM runs WHERE here = 1 AND done = 1 AND job IS NOT NULL GROUP BY job "
        "HAVING COUNT(*) > 1 ORDER BY MAX(ended) DESC, job LIMIT ?"
    )
    out = []
    for job, _ in store.rows(query, (JOBS,)):
        group = attempts_of(store, job)
        if group:
            out.append(Job(job, history.attempts(group), group[0].patch if group[0].failed else []))
    return out
