"""A Slurm job's number in place of a path: the files that Slurm and launch scripts name after it."""

from __future__ import annotations

import re
from pathlib import Path

from doctor.errors import NOTHING_TO_READ, DoctorError

_JOB = re.compile(r"\d{2,}(?:_\d+)?")
"""A job's number, or one task of an array (`4711_3`), as squeue prints it and `%j`, `%A_%a` put it into file names."""
_DEPTH = 3
"""Folders below the current one that are searched: `logs/slurm/`."""


def with_jobs(paths: list[str]) -> list[str]:
    """The paths, with the files of the job in place of a number that is no path. Raises DoctorError (3) for a job without files."""
    return [found for path in paths for found in (files_of(path, Path()) if is_job(path) else [path])]


def is_job(path: str) -> bool:
    """Whether the word is a job's number; a file or folder of that name comes first."""
    return _JOB.fullmatch(path) is not None and not Path(path).exists()


def files_of(job: str, folder: Path) -> list[str]:
    """The files, and folders, below `folder` whose name has the number as a word of its own; of nested ones the outermost."""
    from doctor.readers.walk import worth_a_look

    named = re.compile(rf"(?<!\d){job}(?![\d_])|(?<!\d){job}_(?!\d)")
    found: list[Path] = []
    level = [folder]
    for _ in range(_DEPTH + 1):
        entries = [entry for place in level for entry in _entries(place)]
        found += [entry for entry in entries if named.search(entry.name) and (entry.is_dir() or worth_a_look(entry.name))]
        level = [entry for entry in entries if entry.is_dir() and not entry.is_symlink() and entry not in found]
    if not found:
        from doctor.words import catalogue

        raise DoctorError(catalogue.text("errors.no_job", job=job, folder=folder.resolve()), NOTHING_TO_READ)
    return sorted(map(str, found))


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError:
        return []
