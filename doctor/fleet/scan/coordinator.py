"""Many runs: find them, analyze what changed since the last time, hold attempts of one job against each other, write tables and a page.

The coordinator keeps nothing but counts: states and records lie in an SQLite file beside the output (doctor/fleet/scan/store.py).
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
from doctor.fleet.output import summary, tables
from doctor.fleet.output.summary import Summary
from doctor.fleet.scan import engines, worker
from doctor.fleet.scan.discovery import FoundRun, discover
from doctor.fleet.scan.records import Limits, RunRecord, ScanTask
from doctor.fleet.scan.store import Store
from doctor.planner.plan import PreviousAttempt
from doctor.rulebook import loader
from doctor.support.decoding import from_json
from doctor.support.package_files import rules_folder
from doctor.version import __version__

CHUNK_RUNS, CHUNK_BYTES = 8, 8 << 20
"""What is handed to a worker at a time: so many runs or bytes; a worker that is killed loses no more."""
BREAKDOWNS = 6
"""So often in a row an engine may break down without having finished a single run."""
RECORD_FORMAT = 2


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to scan. `output` is the table of runs; everything else goes beside it under the same stem.

    `report` names what renders a run's report (`module:mapping:key`) and `suffix` the ending of its file; without it there are none.
    """

    roots: list[str]
    output: Path
    engine: engines.Choice = engines.Choice()
    limits: Limits = Limits()
    lang: str = "en"
    report: str | None = None
    suffix: str = ".txt"

    def beside(self, ending: str) -> Path:
        """A file (or folder) of the same stem as the output."""
        return self.output.with_name(self.output.name.removesuffix(".parquet") + ending)


class Progress(Protocol):
    """What a scan tells while it goes on; the command line shows it."""

    def found(self, total: int, unchanged: int) -> None:
        """So many runs were found so far, of which so many need no work."""

    def planned(self, work: int) -> None:
        """So many runs are to be analyzed."""

    def analyzed(self, record: RunRecord | None) -> None:
        """A run is done (None: it was no run)."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class _Silent:
    """Tells nobody."""

    def found(self, total: int, unchanged: int) -> None:
        return

    def planned(self, work: int) -> None:
        return

    def analyzed(self, record: RunRecord | None) -> None:
        return

    def note(self, text: str) -> None:
        return


def scan(options: Options, progress: Progress | None = None) -> Summary:
    """Scans the roots and writes all outputs. Raises DoctorError: 3 where no run was found, 2 where an engine or output cannot be used."""
    progress = progress or _Silent()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    store = Store(options.beside(".cache"), _version(options))
    try:
        if store.settings("limits", msgspec.json.encode(options.limits).decode()):
            store.forget(("too_slow", "too_large"))
        waiting = _find(options, store, progress)
        if waiting:
            progress.planned(waiting)
        with engines.started(options.engine) if waiting or _again(store) else contextlib.nullcontext(_nobody) as engine:
            _analyze(options, store, engine, progress)
            _with_history(options, store, engine, progress)
        return _write(options, store)
    finally:
        store.close()


def _version(options: Options) -> str:
    """What a record depends on beside the run's files: this program, its rules and plugins, the language, the form of reports."""
    added = plugins.load()
    rules = loader.cache_file([rules_folder(), *added.rules])
    parts = (RECORD_FORMAT, __version__, rules and rules.name, options.lang, options.report)
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _find(options: Options, store: Store, progress: Progress) -> int:
    """Notes every run; returns how many must be analyzed."""
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


def _nobody(tasks: Iterable[list[bytes]]) -> engines.Results:
    """No engine: there is nothing to do."""
    return (worker.work(task) for task in tasks)


def _analyze(options: Options, store: Store, engine: engines.Engine, progress: Progress) -> None:
    """Every run without a record gets one; where a worker is lost, the tasks in hand are given out anew."""

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
    """Runs `tasks()` until it yields none. Raises DoctorError where the engine breaks down again and again."""
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
        except Exception as error:  # every engine has its own way to say that a worker is gone
            broken = 0 if done else broken + 1
            if broken >= BREAKDOWNS:
                raise DoctorError(f"the engine broke down {broken} times in a row: {type(error).__name__}: {error}") from error
            progress.note(f"a worker was lost ({type(error).__name__}): its runs are analyzed again")
            continue
        return


def _chunks(tasks: Iterable[ScanTask]) -> Iterator[list[bytes]]:
    """Tasks as they travel, some at a time."""
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


def _again(store: Store) -> bool:
    """Whether some latest attempt has to be planned anew in the light of the others."""
    return any(True for _ in _to_plan(store))


def _with_history(options: Options, store: Store, engine: engines.Engine, progress: Progress) -> None:
    """The latest attempt of every job that failed before is planned anew: what failed already is not proposed."""
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
    """The latest attempt of each job, if it failed like earlier ones and was not yet planned in their light."""
    jobs = store.rows("SELECT job FROM runs WHERE here = 1 AND done = 1 AND job IS NOT NULL GROUP BY job HAVING COUNT(*) > 1")
    for (job,) in jobs:
        group = summary.attempts_of(store, str(job))
        latest = max(group, key=lambda one: (one.ended or 0.0, one.path), default=None)
        if latest is None or not latest.failed:
            continue
        previous_attempts = history.previous_attempts(latest, group)
        digest = (
            hashlib.blake2b(msgspec.json.encode(previous_attempts, order="sorted"), digest_size=8).hexdigest() if previous_attempts else ""
        )
        row = store.rows("SELECT tried FROM runs WHERE path = ?", (latest.path,))
        if row and row[0][0] != digest:
            yield store.found_of(latest.path), previous_attempts, digest


def report_name(path: str, suffix: str) -> str:
    """Where the report of a run lies, in the folder of reports."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
    return f"{digest[:2]}/{digest[2:]}{suffix}"


def _write_report(options: Options, path: str, record: RunRecord) -> None:
    if record.page is None:
        return
    target = options.beside(".reports") / report_name(path, options.suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(record.page, encoding="utf-8", newline="\n")


def _write(options: Options, store: Store) -> Summary:
    """Tables, summary and page; where no run has changed since they were written, and nobody changed them, they stay."""
    from doctor.fleet.output import page

    told = options.beside(".summary.json")
    files = (options.output, options.beside(".findings.parquet"), told, options.beside(".html"))
    state = store.digest(repr((store.about("version"), options.roots, options.limits, options.suffix)))
    if store.about("outputs") == _outputs(state, files) and (kept := _still(told)) is not None:
        return kept
    found = summary.of(store)
    tables.write(store.records(), options.output, options.beside(".findings.parquet"))
    told.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    page.write(store, found, options)
    store.settings("outputs", _outputs(state, files))
    return found


def _still(path: Path) -> Summary | None:
    """The summary of the scan before, if it is one."""
    try:
        return from_json(path.read_bytes(), Summary)
    except (OSError, msgspec.DecodeError):
        return None


def _outputs(state: str, files: Sequence[Path]) -> str:
    """What the outputs are made from, and how they lie on the disk."""
    stats = [path.stat() if path.is_file() else None for path in files]
    return repr((state, [stat and (stat.st_size, stat.st_mtime_ns) for stat in stats]))
