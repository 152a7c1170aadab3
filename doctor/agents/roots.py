"""Which files an agent may reach: paths below the allowed roots, wherever links lead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from doctor.errors import DoctorError

MAX_ENTRIES = 20_000
"""Entries of a run folder that are searched for links; a larger folder is no run."""


class Roots:
    """The folders below which files may be read and written."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [folder.resolve() for folder in folders]

    def reading(self, path: str) -> Path:
        """The real path of something to read. Raises DoctorError for one outside the roots, and for a folder with a link that leads out."""
        real = self._inside(path)
        if not real.exists():
            raise DoctorError(f"{path}: no such file or folder below {self}")
        for entry in _links(real):
            try:
                inside = self._holds(entry.resolve())
            except (OSError, RuntimeError):
                inside = False
            if not inside:
                raise DoctorError(f"{path}: the link {entry} leads out of {self}; nothing was read")
        return real

    def writing(self, path: str) -> Path:
        """The real path of a new file. Raises DoctorError for one outside the roots, that exists, or whose folder does not."""
        real = self._inside(path)
        if real.exists() or real.is_symlink():
            raise DoctorError(f"{path}: this file exists already; name a new one")
        if not real.parent.is_dir():
            raise DoctorError(f"{path}: the folder {real.parent} does not exist")
        return real

    def check_all(self, paths: Iterable[str]) -> None:
        """Raises DoctorError if one of the files that a report was made from, such as a config that a script names, lies outside."""
        for path in paths:
            real = Path(path).resolve()
            if real.exists() and not self._holds(real):
                raise DoctorError(f"{path}: lies outside {self}; start the server with a further --root to allow it")

    def _inside(self, path: str) -> Path:
        if not path or "\0" in path:
            raise DoctorError("name a path below the server's root")
        given = Path(path)
        try:
            real = (given if given.is_absolute() else self.folders[0] / given).resolve()
            real.exists()
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, a link to itself, a character that no path may have
            raise DoctorError(f"{path[:200]}: no path that can be followed ({type(error).__name__})") from error
        if not self._holds(real):
            raise DoctorError(f"{path}: lies outside {self}; start the server with a further --root to allow it")
        return real

    def allows(self, path: Path) -> bool:
        """Whether a file lies below the roots, wherever links lead."""
        try:
            return self._holds(path.resolve())
        except (OSError, RuntimeError):
            return False

    def _holds(self, real: Path) -> bool:
        return any(real == folder or real.is_relative_to(folder) for folder in self.folders)

    def __str__(self) -> str:
        return ", ".join(map(str, self.folders))


def _links(folder: Path) -> list[Path]:
    """The links in a folder and in all folders below it. Raises DoctorError for a folder with too many entries."""
    found: list[Path] = []
    entries = (Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files))
    for number, entry in enumerate(islice(entries, MAX_ENTRIES + 1)):
        if number == MAX_ENTRIES:
            raise DoctorError(f"{folder}: more than {MAX_ENTRIES:,} entries; name the folder of one run")
        if entry.is_symlink():
            found.append(entry)
    return found
