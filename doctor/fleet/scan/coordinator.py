"""Scans many runs: find them, analyze what has changed, compare the attempts of a job, write tables and a page.

Memory does not grow with the runs: states and records are in an SQLite file next to the output (doctor/fleet/scan/store.py).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from doctor import plugins
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.fleet.attribution import history
from doctor.fleet.output import page, summary, tables
from doctor.fleet.output.summary import Summary
from doctor.fleet.scan import engines, worker
from doctor.fleet.scan.discovery import FoundRun, discover
from doctor.fleet.scan.options import Options, report_name
from doctor.fleet.scan.records import RunRecord, ScanTask
from doctor.fleet.scan.store import Store
from doctor.planner.plan import PreviousAttempt
from doctor.rulebook import loader
from doctor.support.decoding import from_json
from doctor.support.package_files import rules_folder
from doctor.version import __version__

CHUNK_RUNS, CHUNK_BYTES = 8, 8 << 20
"""Most runs and bytes that a worker gets at a time; a killed worker loses no more."""
MAX_BREAKDOWNS = 6
"""Breakdowns of an engine in a row without a finished run between them."""
RECORD_FORMAT = 2
"""Version of the cached records; another one invalidates the cache."""


class Progress(Protocol):
    """What a scan reports while it runs; the command line shows it."""

    def found(self, total: int, unchanged: int) -> None:
        """Runs found so far, and how many of them need no work."""

    def planned(self, work: int) -> None:
        """Number of runs to analyze."""

    def analyzed(self, record: RunRecord | None) -> None:
        """A run is done (None: it was no run)."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class _Silent:
    """No progress output."""

    def found(self, total: int, unchanged: int) -> None:
        return

    def planned(self, work: int) -> None:
        return

    def analyzed(self, record: RunRecord | None) -> None:
        return

    def note(self, text: str) -> None:
        return


def scan(options: Options, progress: Progress | None = None) -> Summary:
    """Scan the roots and write all outputs. Raises DoctorError: 3 if no run was found, 2 if an engine or output cannot be used."""
    progress = progress or _Silent()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    store = Store(options.sibling(".cache"), _version(options))
    try:
        if store.settings("limits", msgspec.json.encode(options.limits).decode()):
            store.forget(("too_slow", "too_large"))
        waiting = _find(options, store, progress)
        if waiting:
            progress.planned(waiting)
        with engines.started(options.engine) if waiting or _has_replans(store) else contextlib.nullcontext(_no_engine) as engine:
            _analyze(options, store, engine, progress)
            _with_history(options, store, engine, progress)
        return _write(options, store)
    finally:
        store.close()


def _version(options: Options) -> str:
    """What a record depends on besides the run's files: this program, its rules and plugins, the language, the report format."""
    added = plugins.load()
    rules = loader.cache_file([rules_folder(), *added.rules])
    parts = (RECORD_FORMAT, __version__, rules and rules.name, options.lang, options.report)
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _find(options: Options, store: Store, progress: Progress) -> int:
    """Store every run; returns how many must be analyzed."""
    total = work = 0
    for total, found in enumerate(discover(options.roots), 1):
        work += store.found(found)
        if total % 100 == 0:
            progress.found(total, total - work)
    store.commit()
    progress.found(total, total - work)
    if not total:
        raise DoctorError(f"{', '.join(options.roots)}: no training run found here", NOTHING_TO_READ)
    return work


def _no_engine(tasks: Iterable[list[bytes]]) -> engines.Results:
    """Used when there is nothing to do."""
    return (worker.work(task) for task in tasks)


def _analyze(options: Options, store: Store, engine: engines.Engine, progress: Progress) -> None:
    """Analyze every run without a record; tasks of a lost worker are handed out again."""

    def tasks() -> Iterator[ScanTask]:
        return (ScanTask(found, options.limits, options.lang, options.report) for found in store.waiting())

    def keep(path: str, record: bytes) -> None:
        decoded = store.put(path, record)
        if decoded is not None:
            _write_report(options, path, decoded)
        progress.analyzed(decoded)

    _work(tasks, keep, engine, progress)
    store.commit()


def _work(tasks: Callable[[], Iterator[ScanTask]], keep: Callable[[str, bytes], None], engine: engines.Engine, progress: Progress) -> None:
    """Run `tasks()` until it yields none. Raises DoctorError after MAX_BREAKDOWNS."""
    broken = 0
    while True:
        done = 0
        try:
            for results in engine(_chunks(tasks())):
                for path, record in results:
                    keep(path, record)
                    done += 1
        except DoctorError:
            raise
        except Exception as error:  # every engine has its own exceptions for a lost worker
            broken = 0 if done else broken + 1
            if broken >= MAX_BREAKDOWNS:
                raise DoctorError(f"the engine broke down {broken} times in a row: {type(error).__name__}: {error}") from error
            progress.note(f"a worker was lost ({type(error).__name__}): its runs are analyzed again")
            continue
        return


def _chunks(tasks: Iterable[ScanTask]) -> Iterator[list[bytes]]:
    """Encoded tasks in chunks."""
    chunk: list[bytes] = []
    size = 0
    for task in tasks:
        chunk.append(msgspec.msgpack.encode(task))
        size += task.found.size
        if len(chunk) >= CHUNK_RUNS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _has_replans(store: Store) -> bool:
    """Whether the patch of some latest attempt must be planned again, with the attempts before it."""
    return any(True for _ in _to_plan(store))


def _with_history(options: Options, store: Store, engine: engines.Engine, progress: Progress) -> None:
    """Plan the latest attempt of every job that failed before again: what failed already is not proposed."""
    digests: dict[str, str] = {}

    def tasks() -> Iterator[ScanTask]:
        for found, previous_attempts, digest in _to_plan(store):
            digests[found.path] = digest
            yield ScanTask(found, options.limits, options.lang, options.report, previous_attempts)

    def keep(path: str, record: bytes) -> None:
        decoded = store.put(path, record, digests.pop(path))
        if decoded is not None:
            _write_report(options, path, decoded)

    _work(tasks, keep, engine, progress)
    store.commit()


def _to_plan(store: Store) -> Iterator[tuple[FoundRun, list[PreviousAttempt], str]]:
    """The latest attempt of each job, if it failed like earlier ones and was not yet planned with them."""
    jobs = store.rows("SELECT job FROM runs WHERE here = 1 AND done = 1 AND job IS NOT NULL GROUP BY job HAVING COUNT(*) > 1")
    for (job,) in jobs:
        group = summary.attempts_of(store, str(job))
        latest = max(group, key=lambda run: (run.ended or 0.0, run.path), default=None)
        if latest is None or not latest.failed:
            continue
        previous_attempts = history.previous_attempts(latest, group)
        digest = (
            hashlib.blake2b(msgspec.json.encode(previous_attempts, order="sorted"), digest_size=8).hexdigest() if previous_attempts else ""
        )
        row = store.rows("SELECT tried FROM runs WHERE path = ?", (latest.path,))
        if row and row[0][0] != digest:
            yield store.found_of(latest.path), previous_attempts, digest


def _write_report(options: Options, path: str, record: RunRecord) -> None:
    if record.page is None:
        return
    target = options.sibling(".reports") / report_name(path, options.suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(record.page, encoding="utf-8", newline="\n")


def _write(options: Options, store: Store) -> Summary:
    """Write tables, summary and page; if neither the runs nor these files have changed since, they stay."""
    summary_file = options.sibling(".summary.json")
    files = (options.output, options.sibling(".findings.parquet"), summary_file, options.sibling(".html"))
    state = store.digest(repr((store.about("version"), options.roots, options.limits, options.suffix)))
    if store.about("outputs") == _outputs(state, files) and (kept := _previous_summary(summary_file)) is not None:
        return kept
    found = summary.of(store)
    tables.write(store.records(), options.output, options.sibling(".findings.parquet"))
    summary_file.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    page.write(store, found, options)
    store.settings("outputs", _outputs(state, files))
    return found


def _previous_summary(path: Path) -> Summary | None:
    """The summary of the previous scan; None if there is none."""
    try:
        return from_json(path.read_bytes(), Summary)
    except (OSError, msgspec.DecodeError):
        return None


def _outputs(state: str, files: Sequence[Path]) -> str:
    """What the outputs are made from, with their sizes and times on disk."""
    stats = [path.stat() if path.is_file() else None for path in files]
    return repr((state, [stat and (stat.st_size, stat.st_mtime_ns) for stat in stats]))
