"""Which files below a folder belong to one run: `analyze` and `scan` ask the same walk. No file is opened.

- A folder with what a trainer writes (trainer_log.jsonl, trainer_state.json, event files, ...) is a run; its checkpoint, TensorBoard and
  log folders are parts of it. A run in one of its other folders is another run.
- A folder with console logs and one run below it is that run.
- Console logs next to several runs belong to the run with the same name.
- Other console logs are runs by themselves, grouped by job (`job-7.out` with `job-7.err`).
- `wandb/` holds one run per `run-...` folder; a single one belongs to the run around it.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from doctor.readers.base import Reader
from doctor.readers.console.reader import Console
from doctor.readers.formats.compression import plain_name
from doctor.readers.listing import Entry, Listing, LocalListing
from doctor.readers.registry import READERS
from doctor.readers.walk import worth_a_look

DEPTH = 12
"""Folders below a root that are visited."""
MAX_FILES = 2000
"""Files of a run that are listed."""
_JOINED_DEPTH = 4
"""Folders between a console log and the output folder that it belongs to: `saves/MODEL/lora/sft`."""
_PART_DEPTH = 3
"""Folders below a run in which its files are looked for."""

_MAY_BE_CONSOLE = re.compile(r"(?:.*[-_.])?(?:train(?:ing)?|running|run)[-_.]?(?:[-_.]\w+)?\.txt", re.IGNORECASE)
"""Text files that a reader would open to see what they are; here the name decides."""
_SETTINGS = re.compile(r".*\.(?:ya?ml|sh|bash|slurm|sbatch)|.*(?:ds_|deepspeed|zero)[^/]*\.json|readme\.md", re.IGNORECASE)
_PART = re.compile(
    r"checkpoint-\d+|global_step\d+|runs|logs?|tb|tensorboard|tf?events|wandb|swanlab|swanlog|attempt_\d+|node_?\d+", re.IGNORECASE
)
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_LOGS = re.compile(r"logs?|slurm(?:[-_]?logs?)?|std|consoles?|out", re.IGNORECASE)
_SKIPPED = re.compile(r"\.git|\.cache|__pycache__|node_modules|\.?venv|site-packages|\..*_cache|.*\.reports")
_TRACKED_RUN = re.compile(r"(?:offline-)?run-\S+")
"""Name of W&B's and SwanLab's folder of one run (wandb/sdk/wandb_settings.py `sync_dir`)."""
_TRACKERS = re.compile(r"wandb|swanlog|swanlab", re.IGNORECASE)
_MLFLOW_PARTS = frozenset({"metrics", "params", "tags", "artifacts", "inputs", "outputs"})
"""Folders of a run in MLflow's file store (mlflow/store/tracking/file_store.py)."""
_TRAINER_FILES = frozenset({"trainer_log", "trainer_state", "training_args", "results"})
_HISTORIES = frozenset({"journal", "trainer_log", "trainer_state", "tensorboard", "wandb", "swanlab", "mlflow"})
"""Kinds of files that hold a run's course. A folder in a run without any of them holds a copy of its results."""
_STREAM = re.compile(
    r"(?:^|[-_.])(?:std)?(?:out|err)(?:or|put)?(?=$|[-_.])|(?:^|[-_.])(?:local[-_]?)?(?:rank|node|worker)[-_]?\d+|\.(?:log|txt|gz|stdout|stderr|\d+)(?=$|\.)",
    re.IGNORECASE,
)
_GENERIC = frozenset({"", "console", "train", "training", "log", "run", "running", "nohup", "output", "main", "lfdoctor", "stdout"})


class RunFiles(msgspec.Struct, frozen=True):
    """A run: its path (a folder, or the stem of its console logs), the paths to read, and its files.

    `problems` say what could not be listed; without `entries` there is nothing to read.
    """

    path: str
    paths: list[str]
    entries: list[Entry] = []
    problems: list[str] = []

    @property
    def changed(self) -> int:
        """The newest modification time of its files, nanoseconds since 1970; 0 if unknown."""
        return max((entry.changed for entry in self.entries), default=0)


@lru_cache(4096)
def kind_of(name: str, readers: tuple[Reader, ...] = READERS) -> tuple[str, str]:
    """(Role, reader's kind) of a file of this name. The role is `output`, `console`, `settings`, or empty."""
    path = Path(name)
    reader = next((reader for reader in readers if reader.claims(Path(plain_name(path)), b"") or reader.claims(path, b"")), None)
    kind = reader.kind if reader is not None else ""
    if getattr(reader, "output", False):
        return "output", kind
    if isinstance(reader, Console) or _MAY_BE_CONSOLE.fullmatch(plain_name(path)):
        return "console", kind
    return "settings" if worth_a_look(name) and (reader is not None or _SETTINGS.fullmatch(name)) else "", kind


def runs_below(root: str, listing: Listing | None = None, readers: tuple[Reader, ...] = READERS) -> Iterator[RunFiles]:
    """The runs of a folder, each once; the folder's own run, if it is one, first. Nothing for a file."""
    listing = listing or LocalListing()
    top = root.rstrip("/\\") or root
    try:
        next(iter(listing.list(top)), None)
    except NotADirectoryError:
        return
    except OSError:
        pass  # the walk notes it as a problem
    yield from _Walk(listing, readers).visit(top, 0, ())


class ChosenRun(msgspec.Struct, frozen=True):
    """The run of a folder that a report is about: `path` is its name, `paths` are to be read, `others` are the paths of the other runs."""

    path: str
    paths: list[str]
    others: list[str] = []


def choose_run(folder: str, readers: tuple[Reader, ...] = READERS) -> ChosenRun:
    """The run whose output lies in the folder itself, else the one that changed last. A folder with one run or none is read as a whole."""
    runs = [run for run in runs_below(folder, readers=readers) if run.entries]
    if len(runs) < 2:
        far = [path for run in runs for path in run.paths if path != run.path and run.path == folder.rstrip("/\\")]
        return ChosenRun(folder, [folder, *far])
    chosen = runs[0] if runs[0].path == (folder.rstrip("/\\") or folder) else max(runs, key=lambda run: run.changed)
    return ChosenRun(chosen.path, chosen.paths, [run.path for run in runs if run is not chosen])


class _Folder(msgspec.Struct):
    """A listing, sorted by the role of its names."""

    path: str
    outputs: list[Entry] = []
    consoles: list[Entry] = []
    settings: list[Entry] = []
    parts: list[str] = []
    folders: list[str] = []
    problems: list[str] = []

    def files(self) -> list[Entry]:
        """Everything in it that can be read."""
        return [*self.outputs, *self.consoles, *self.settings]


class _Walk:
    def __init__(self, listing: Listing, readers: tuple[Reader, ...]) -> None:
        self.listing, self.readers = listing, readers

    def look(self, path: str) -> _Folder:
        """List a folder; what cannot be listed or is no regular file becomes a problem."""
        folder = _Folder(path)
        try:
            for entry in self.listing.list(path):
                self._sort(entry, folder)
        except OSError as error:
            folder.problems.append(f"{path}: cannot be listed: {error.strerror or error}")
        _mlflow_run(folder)
        for names in (folder.parts, folder.folders):
            names.sort()
        return folder

    def _sort(self, entry: Entry, folder: _Folder) -> None:
        name = entry.name
        if entry.kind == "folder":
            if not _SKIPPED.fullmatch(name):
                part = _PART.fullmatch(name) or (name in ("files", "logs") and _TRACKED_RUN.fullmatch(_name(folder.path)))
                (folder.parts if part else folder.folders).append(entry.path)
            return
        role, _ = kind_of(name, self.readers)
        if entry.kind == "odd":
            if role in ("output", "console") or "." not in name:
                folder.problems.append(f"{entry.path}: a link to a folder, a dead link or a pipe: not followed")
        elif role:
            {"output": folder.outputs, "console": folder.consoles, "settings": folder.settings}[role].append(entry)

    def visit(self, path: str, depth: int, given: Sequence[Entry]) -> Iterator[RunFiles]:
        """The runs of a folder and below it. `given` are console logs from other folders that carry this folder's name."""
        here = self.look(path)
        if here.outputs or self._saved_here(here):
            nested = [run for run in self._below(here.folders, depth, {}) if self._holds(run, _HISTORIES)]
            yield self._run(here, given, whole=not nested)
            yield from nested
            return
        logs = [part for part in here.parts if _LOGS.fullmatch(_name(part))]
        named, consoles = self._match(here, logs)
        tracked = [run for part in here.parts if _TRACKERS.fullmatch(_name(part)) for run in self._of_tracker(part, depth)]
        below = itertools.chain(self._below(here.folders, depth, named), tracked if len(tracked) > 1 else ())
        first = list(itertools.islice(below, 3))
        own = [*consoles, *given]
        if first and self._are_one(first, here, own):
            yield self._run(here, given, whole=True, also=first)
            return
        yield from first
        yield from below
        if first:
            yield from self._consoles(here, own, alone=False)
            yield from tracked if len(tracked) == 1 else ()
        elif own or any(self._holds_output(part) for part in here.parts if part not in logs):
            yield from self._consoles(here, own, alone=True)
        elif len(tracked) == 1:
            yield from tracked
        else:
            if here.problems:
                yield RunFiles(here.path, [], [], here.problems)
            for part in here.parts:
                yield from self.visit(part, depth + 1, ())

    def _saved_here(self, here: _Folder) -> bool:
        """Whether a trainer saved into this folder, though its own files are gone: people publish checkpoints and leave out the rest."""
        saved = [part for part in here.parts if _CHECKPOINT.fullmatch(_name(part))]
        return any(self._holds(self._run(self.look(part), (), whole=False), _TRAINER_FILES) for part in saved[:4])

    def _of_tracker(self, path: str, depth: int) -> Iterator[RunFiles]:
        """The runs of W&B's or SwanLab's folder: one per folder that the tracker made."""
        for folder in self.look(path).folders:
            if _TRACKED_RUN.fullmatch(_name(folder)):
                yield from self.visit(folder, depth + 1, ())

    def _are_one(self, runs: Sequence[RunFiles], here: _Folder, own: Sequence[Entry]) -> bool:
        """Whether the runs below a folder are the one that its console logs and settings are of.

        That is a single run, or a trainer's output folder and the folder of whatever watched it.
        """
        limit = depth_of(here.path) + (_JOINED_DEPTH if own else 2)
        trained = sum(self._holds(run, _TRAINER_FILES) for run in runs)
        single = len(runs) == 1 or (len(runs) == 2 and trained == 1 and all(self._holds(run, _HISTORIES) for run in runs))
        return single and bool(own or here.settings) and all(depth_of(run.path) <= limit and not run.problems for run in runs)

    def _holds(self, run: RunFiles, kinds: frozenset[str]) -> bool:
        return any(kind_of(entry.name, self.readers)[1] in kinds for entry in run.entries)

    def _below(self, folders: Sequence[str], depth: int, named: dict[str, list[Entry]]) -> Iterator[RunFiles]:
        if depth < DEPTH:
            for folder in folders:
                yield from self.visit(folder, depth + 1, named.get(folder, ()))

    def _match(self, here: _Folder, logs: Sequence[str]) -> tuple[dict[str, list[Entry]], list[Entry]]:
        """Console logs here and in log folders: by the run folder with the same name, and the rest."""
        by_name = {_job(_name(folder)): folder for folder in here.folders}
        named: dict[str, list[Entry]] = defaultdict(list)
        rest = []
        for entry in [*here.consoles, *(entry for folder in logs for entry in self.look(folder).consoles)]:
            owner = by_name.get(_job(entry.name))
            if owner is None:
                rest.append(entry)
            else:
                named[owner].append(entry)
        return named, rest

    def _holds_output(self, part: str) -> bool:
        inside = self.look(part)
        return bool(inside.outputs or inside.consoles) or any(self._holds_output(part) for part in inside.parts[:4])

    def _consoles(self, here: _Folder, consoles: Sequence[Entry], *, alone: bool) -> Iterator[RunFiles]:
        """Runs of which only console logs are left: one per job; a folder with one job is a run as a whole."""
        jobs: dict[str, list[Entry]] = defaultdict(list)
        for entry in consoles:
            job = _job(entry.name)
            jobs["" if job in _GENERIC else job].append(entry)
        if alone and len(jobs) > 1 and "" in jobs:
            main = jobs.pop("")
            jobs[next(iter(jobs))] += main
        if alone and len(jobs) <= 1:
            yield self._run(here, (), whole=True)
            return
        for job, entries in sorted(jobs.items()):
            yield _found(f"{here.path}/{job or 'console'}", [entry.path for entry in entries], entries, [])

    def _run(self, here: _Folder, given: Sequence[Entry], *, whole: bool, also: Sequence[RunFiles] = ()) -> RunFiles:
        """The run of this folder: all of it, or, if there are other runs below, its own files and parts."""
        entries, problems = here.files(), list(here.problems)
        for part in [*here.parts, *(here.folders if whole else ())]:
            self._gather(part, entries, problems, 0)
        paths = [here.path] if whole else [*(entry.path for entry in here.files()), *here.parts]
        far = [path for run in also if depth_of(run.path) > depth_of(here.path) + _PART_DEPTH for path in run.paths]
        return _found(here.path, [*paths, *far, *(entry.path for entry in given)], [*entries, *given], problems)

    def _gather(self, path: str, entries: list[Entry], problems: list[str], depth: int) -> None:
        """Add the files of a run's parts."""
        inside = self.look(path)
        entries += inside.files()
        problems += inside.problems
        if depth < _PART_DEPTH and len(entries) < MAX_FILES:
            for part in [*inside.parts, *inside.folders]:
                self._gather(part, entries, problems, depth + 1)


def _mlflow_run(folder: _Folder) -> None:
    """A folder of MLflow's file store (meta.yaml beside metrics/) is a run; an experiment has a meta.yaml, too, but no metrics."""
    meta = [entry for entry in folder.settings if entry.name == "meta.yaml"]
    if meta and any(_name(path) == "metrics" for path in folder.folders):
        folder.outputs += meta
        folder.settings = [entry for entry in folder.settings if entry.name != "meta.yaml"]
        own = [path for path in folder.folders if _name(path) in _MLFLOW_PARTS]
        folder.parts += own
        folder.folders = [path for path in folder.folders if path not in own]


def _found(path: str, paths: list[str], entries: Sequence[Entry], problems: list[str]) -> RunFiles:
    kept = sorted(entries, key=lambda entry: entry.path)[:MAX_FILES]
    return RunFiles(path, paths if kept else [], kept, problems[:20])


def _name(path: str) -> str:
    return re.split(r"[\\/]", path)[-1]


def depth_of(path: str) -> int:
    """Number of folders in a path."""
    return len(re.split(r"[\\/]", path))


def _job(name: str) -> str:
    """The name of a console log without stream, rank and endings."""
    return _STREAM.sub("", name.lower()).strip("-_. ")
