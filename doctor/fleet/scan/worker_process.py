"""`python -m doctor.fleet.scan.worker_process`: analyzes the runs that a worker sends on standard input, until that is closed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from importlib import import_module  # noqa: TID251 (a reporter, ours or a plugin's)
from pathlib import Path

import msgspec

from doctor.diagnosis.pipeline import Analysis, run_analysis
from doctor.diagnosis.tools import Tools
from doctor.errors import DoctorError
from doctor.fleet.scan import discovery, storage
from doctor.fleet.scan.records import RunRecord, ScanTask, failed_to, nothing_there, record_of
from doctor.fleet.scan.worker import READY
from doctor.report.model import Report
from doctor.support.decoding import from_json, unpack
from doctor.support.subprocesses import receive, send, streams

WHOLE = 64 << 20
HEAD, TAIL = 4 << 20, 32 << 20
"""Bytes: of a remote file larger than WHOLE only the first HEAD and the last TAIL are fetched."""


def main() -> None:
    """Answer tasks until the worker is gone."""
    tasks, answers = streams()
    tools = Tools.load()
    send(answers, READY)
    while (message := receive(tasks)) is not None:
        send(answers, msgspec.msgpack.encode(_answer(unpack(message, ScanTask), tools)))


def _answer(task: ScanTask, tools: Tools) -> RunRecord | None:
    """The record of a run; None if it is no run. Always answers unless the process dies."""
    try:
        with _local(task) as (paths, rename):
            seen = run_analysis(paths, lang=task.lang, previous_attempts=task.previous_attempts, tools=tools)
            if _says_nothing(seen) and discovery.only_logs(task.found) and not task.found.problems:
                return None
            report = rename(msgspec.structs.replace(seen.report, run=_named(seen.report, task)))
            record = record_of(task.found, Analysis(report, seen.judged, seen.run))
            return msgspec.structs.replace(record, page=_rendered(report, task.report))
    except DoctorError as error:
        if nothing_there(task.found, error.exit_code):
            return None
        return failed_to(task.found, "unreadable", "; ".join([*task.found.problems, *str(error).splitlines()][:3]))
    except MemoryError:
        return failed_to(task.found, "too_large", "out of memory")
    except Exception as error:  # a bad run must not stop the scan; its record says what happened
        return failed_to(task.found, "crashed", f"{type(error).__name__}: {error}")


def _says_nothing(seen: Analysis) -> bool:
    """Whether this may be the log of any program: no options, no steps, no line of a training, no finding."""
    run = seen.run
    return not (run.config or run.series or run.ends or run.exceptions or seen.judged or set(run.facts) - {"text"})


def _named(report: Report, task: ScanTask) -> object:
    return msgspec.structs.replace(report.run, path=task.found.path)


def _rendered(report: Report, renderer: str | None) -> str | None:
    """The rendered report; `renderer` names a function as `module:mapping:key`."""
    if renderer is None:
        return None
    module, mapping, key = renderer.split(":")
    page: str = getattr(import_module(module), mapping)[key](report)
    return page


@contextlib.contextmanager
def _local(task: ScanTask) -> Iterator[tuple[list[str], Renaming]]:
    """Paths to read: the run's own, or copies of a remote run's files, whose names are replaced in the report afterwards."""
    if not storage.remote(task.found.path):
        yield task.found.paths, Renaming("", "")
        return
    with tempfile.TemporaryDirectory(prefix="lfdoctor-") as folder:
        base = task.found.path.rstrip("/") + "/"
        for url, size in task.found.files:
            _fetch(url, size, Path(folder, *_inside(url, base)))
        yield [folder], Renaming(folder, base.rstrip("/"))


def _inside(url: str, base: str) -> list[str]:
    """The parts of a file's path below its run; consoles from other folders go to the top."""
    rest = url[len(base) :] if url.startswith(base) else url.rpartition("/")[2]
    return [part for part in rest.split("/") if part not in ("", ".", "..")]


def _fetch(url: str, size: int, target: Path) -> None:
    """Copy a remote file: whole, or both ends with a line in between that says what is missing."""
    system = storage.system(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    if size <= WHOLE:
        system.get_file(url, str(target))
        return
    head, tail = system.cat_file(url, start=0, end=HEAD), system.cat_file(url, start=size - TAIL, end=size)
    target.write_bytes(head + f"\n[lfdoctor: {size - HEAD - TAIL} bytes left out]\n".encode() + tail)


class Renaming(msgspec.Struct, frozen=True):
    """Replaces the folder of copies by the run's own path everywhere in a report."""

    folder: str
    name: str

    def __call__(self, report: Report) -> Report:
        if not self.folder:
            return report
        text = msgspec.json.encode(report).replace(self.folder.encode(), self.name.encode())
        return from_json(text, Report)


if __name__ == "__main__":
    main()
