"""The runs under the roots of a scan, each with a signature by which the next scan knows whether it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache

import msgspec

from doctor import plugins
from doctor.fleet.scan.storage import Storage, storage_of
from doctor.readers.base import Reader
from doctor.readers.discovery import RunFiles, kind_of, runs_below
from doctor.readers.registry import READERS


class FoundRun(msgspec.Struct, frozen=True):
    """A run: its path (a folder, or the stem of its console logs), what to read, and the state in which it was found.

    `files` are (path, bytes). `signature` changes when any of the files does (path, size, modification time, both ends). `ended` is the
    newest modification time in Unix seconds. `problems` say what could not be listed; without `paths` there is nothing to read.
    """

    path: str
    paths: list[str]
    files: list[tuple[str, int]]
    signature: str
    size: int
    ended: float
    problems: list[str] = []


@cache
def _readers() -> tuple[Reader, ...]:
    """Ours and those of plugins, in order of precedence."""
    return (*READERS, *plugins.load().readers)


def belongs(name: str) -> str:
    """The role of a file of this name by the readers' rules: `output`, `console`, `settings`, or empty."""
    return kind_of(name, _readers())[0]


def only_logs(found: FoundRun) -> bool:
    """Whether only the names of its logs say that this is a training run."""
    return not any(belongs(path.replace("\\", "/").rpartition("/")[2]) == "output" for path, _ in found.files)


def discover(roots: Sequence[str]) -> Iterator[FoundRun]:
    """The runs under the roots, each once, in no particular order. Raises DoctorError for a root that does not exist."""
    for root in dict.fromkeys(roots):
        storage = storage_of(root)
        for run in runs_below(root, storage, _readers()):
            yield _signed(run, storage)


def _signed(run: RunFiles, storage: Storage) -> FoundRun:
    digest = hashlib.blake2b(digest_size=16)
    for entry in run.entries:
        digest.update(f"{entry.path}\0{entry.size}\0{entry.changed}\0{entry.tag}\n".encode("utf-8", "surrogateescape"))
        digest.update(storage.ends(entry))
    return FoundRun(
        path=run.path,
        paths=run.paths,
        files=[(entry.path, entry.size) for entry in run.entries],
        signature=digest.hexdigest(),
        size=sum(entry.size for entry in run.entries),
        ended=run.changed / 1e9,
        problems=run.problems,
    )
