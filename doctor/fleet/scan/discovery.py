"""Finds the runs under a root in one walk that opens nothing but both ends of a run's files.

- A folder with what a trainer writes (trainer_log.jsonl, trainer_state.json, event files, ...) is a run; its checkpoint, TensorBoard and
  log folders are parts of it.
- A folder with console logs and one run below it is that run.
- Console logs next to several runs belong to the run with the same name.
- Other console logs are runs by themselves, grouped by job (`job-7.out` with `job-7.err`).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import msgspec

from doctor import plugins
from doctor.fleet.scan.storage import Entry, Storage, storage_of
from doctor.readers.console.reader import Console
from doctor.readers.discovery import worth_a_look
from doctor.readers.formats.compression import plain_name
from doctor.readers.registry import READERS

DEPTH = 12
"""Folders below a root that are visited."""
MAX_FILES = 2000
"""Files of a run that count when its signature is computed."""

_MAY_BE_CONSOLE = re.compile(r"(?:.*[-_.])?(?:train(?:ing)?|running|run)[-_.]?(?:[-_.]\w+)?\.txt", re.IGNORECASE)
"""Text files that a reader would open to see what they are; here the name decides."""
_SETTINGS = re.compile(r".*\.(?:ya?ml|sh|bash|slurm|sbatch)|.*(?:ds_|deepspeed|zero)[^/]*\.json|readme\.md", re.IGNORECASE)
_PART = re.compile(r"checkpoint-\d+|global_step\d+|runs|logs?|tb|tensorboard|tf?events|wandb|swanlab|attempt_\d+|node_?\d+", re.IGNORECASE)
_LOGS = re.compile(r"logs?|slurm(?:[-_]?logs?)?|std|consoles?|out", re.IGNORECASE)
_SKIPPED = re.compile(r"\.git|\.cache|__pycache__|node_modules|\.?venv|site-packages|\..*_cache|.*\.reports")
_STREAM = re.compile(
    r"(?:^|[-_.])(?:std)?(?:out|err)(?:or|put)?(?=$|[-_.])|(?:^|[-_.])(?:local[-_]?)?(?:rank|node|worker)[-_]?\d+|\.(?:log|txt|gz|stdout|stderr|\d+)(?=$|\.)",
    re.IGNORECASE,
)
_GENERIC = frozenset({"", "console", "train", "training", "log", "run", "running", "nohup", "output", "main", "lfdoctor", "stdout"})


class FoundRun(msgspec.Struct, frozen=True):
    """A run: its path (a folder, or the stem of its console logs), what to read, and the state in which it was found.

    `signature` changes when any of its files does (path, size, modification time, both ends). `ended` is the newest modification time in
    Unix seconds. `problems` say what could not be listed; without `paths` there is nothing to read.
    """

    path: str
    paths: list[str]
    files: list[tuple[str, int]]
    signature: str
    size: int
    ended: float
    problems: list[str] = []


@cache
def _readers() -> tuple[Any, ...]:
    """Ours and those of plugins, in order of precedence."""
    return (*READERS, *plugins.load().readers)


@lru_cache(4096)
def belongs(name: str) -> str:
    """The role of a file of this name by the readers' rules: `output`, `console`, `settings`, or empty."""
    path = Path(name)
    reader = next((reader for reader in _readers() if reader.claims(Path(plain_name(path)), b"") or reader.claims(path, b"")), None)
    if reader is not None and getattr(reader, "output", False):
        return "output"
    if isinstance(reader, Console) or _MAY_BE_CONSOLE.fullmatch(plain_name(path)):
        return "console"
    return "settings" if worth_a_look(name) and (reader is not None or _SETTINGS.fullmatch(name)) else ""


def only_logs(found: FoundRun) -> bool:
    """Whether only the names of its logs say that this is a training run."""
    return not any(belongs(_name(path)) == "output" for path, _ in found.files)


def discover(roots: Sequence[str]) -> Iterator[FoundRun]:
    """The runs under the roots, each once, in no particular order. Raises DoctorError for a root that does not exist."""
    for root in dict.fromkeys(roots):
        storage = storage_of(root)
        top = root.rstrip("/\\") or root
        if not next(iter(_kinds(storage, top)), None):
            yield from _Walk(storage).visit(top, 0, ())


def _kinds(storage: Storage, root: str) -> Iterator[str]:
    """Yields a word if the root is no folder: `lfdoctor analyze` is for single logs."""
    try:
        next(storage.list(root), None)
    except NotADirectoryError:
        yield "file"
    except OSError:
        return


class _Folder(msgspec.Struct):
    """A listing, sorted by the role of its names."""

    path: str
    outputs: list[Entry] = []
    consoles: list[Entry] = []
    settings: list[Entry] = []
    parts: list[str] = []
    folders: list[str] = []
    problems: list[str] = []


class _Walk:
    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def look(self, path: str) -> _Folder:
        """List a folder; what cannot be listed or is no regular file becomes a problem."""
        folder = _Folder(path)
        try:
            for entry in self.storage.list(path):
                self._sort(entry, folder)
        except OSError as error:
            folder.problems.append(f"{path}: cannot be listed: {error.strerror or error}")
        for names in (folder.parts, folder.folders):
            names.sort()
        return folder

    def _sort(self, entry: Entry, folder: _Folder) -> None:
        name = entry.name
        if entry.kind == "folder":
            if not _SKIPPED.fullmatch(name):
                (folder.parts if _PART.fullmatch(name) else folder.folders).append(entry.path)
            return
        kind = belongs(name)
        if entry.kind == "odd":
            if kind in ("output", "console") or "." not in name:
                folder.problems.append(f"{entry.path}: a link to a folder, a dead link or a pipe: not followed")
        elif kind:
            {"output": folder.outputs, "console": folder.consoles, "settings": folder.settings}[kind].append(entry)

    def visit(self, path: str, depth: int, given: Sequence[Entry]) -> Iterator[FoundRun]:
        """The runs of a folder and below it. `given` are console logs from other folders that carry this folder's name."""
        here = self.look(path)
        if here.outputs:
            nested = self._below(here.folders, depth, {})
            first = next(nested, None)
            yield self._run(here, given, whole=first is None)
            yield from itertools.chain([first] if first else [], nested)
            return
        logs = [part for part in here.parts if _LOGS.fullmatch(_name(part))]
        named, consoles = self._match(here, logs)
        below = self._below(here.folders, depth, named)
        two = list(itertools.islice(below, 2))
        own = [*consoles, *given]
        if len(two) == 1 and (own or here.settings) and depth_of(two[0].path) <= depth_of(path) + 2 and not two[0].problems:
            yield self._run(here, given, whole=True, also=two)
            return
        yield from two
        yield from below
        if two:
            yield from self._consoles(here, own, alone=False)
        elif own or any(self._holds_output(part) for part in here.parts if part not in logs):
            yield from self._consoles(here, own, alone=True)
        else:
            if here.problems:
                yield self._unreadable(here)
            for part in here.parts:
                yield from self.visit(part, depth + 1, ())

    def _below(self, folders: Sequence[str], depth: int, named: dict[str, list[Entry]]) -> Iterator[FoundRun]:
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

    def _consoles(self, here: _Folder, consoles: Sequence[Entry], *, alone: bool) -> Iterator[FoundRun]:
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
            yield self._found(f"{here.path}/{job or 'console'}", [entry.path for entry in entries], entries, [])

    def _run(self, here: _Folder, given: Sequence[Entry], *, whole: bool, also: Sequence[FoundRun] = ()) -> FoundRun:
        """The run of this folder: all of it, or, if there are other runs below, its own files and parts."""
        entries = [*here.outputs, *here.consoles, *here.settings]
        problems = list(here.problems)
        parts = [*here.parts, *(here.folders if whole else ())]
        for part in parts:
            self._gather(part, entries, problems, 0)
        own = [*here.outputs, *here.consoles, *here.settings]
        paths = [here.path] if whole else [*(entry.path for entry in own), *here.parts]
        return self._found(here.path, [*paths, *(entry.path for entry in given)], [*entries, *given], problems)

    def _gather(self, path: str, entries: list[Entry], problems: list[str], depth: int) -> None:
        """Add the files of a run's parts, for its signature."""
        inside = self.look(path)
        entries += [*inside.outputs, *inside.consoles, *inside.settings]
        problems += inside.problems
        if depth < 3 and len(entries) < MAX_FILES:
            for part in [*inside.parts, *inside.folders]:
                self._gather(part, entries, problems, depth + 1)

    def _found(self, path: str, paths: list[str], entries: Sequence[Entry], problems: list[str]) -> FoundRun:
        digest = hashlib.blake2b(digest_size=16)
        entries = sorted(entries, key=lambda entry: entry.path)[:MAX_FILES]
        for entry in entries:
            digest.update(f"{entry.path}\0{entry.size}\0{entry.changed}\0{entry.tag}\n".encode("utf-8", "surrogateescape"))
            digest.update(self.storage.ends(entry))
        return FoundRun(
            path=path,
            paths=paths if entries else [],
            files=[(entry.path, entry.size) for entry in entries],
            signature=digest.hexdigest(),
            size=sum(entry.size for entry in entries),
            ended=max((entry.changed for entry in entries), default=0) / 1e9,
            problems=problems[:20],
        )

    def _unreadable(self, here: _Folder) -> FoundRun:
        return self._found(here.path, [], [], here.problems)


def _name(path: str) -> str:
    return re.split(r"[\\/]", path)[-1]


def depth_of(path: str) -> int:
    """Number of folders in a path."""
    return len(re.split(r"[\\/]", path))


def _job(name: str) -> str:
    """The name of a console log without stream, rank and endings."""
    return _STREAM.sub("", name.lower()).strip("-_. ")
