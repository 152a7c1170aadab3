"""The files below the paths that a user gave, each with the reader that claims it."""

from __future__ import annotations

import io
import re
import shutil
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doctor.core.events import Fact
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.readers import remote
from doctor.readers.base import Reader, ReaderBase
from doctor.readers.console.reader import Console
from doctor.readers.file import HEAD, File, IteratorStream, Progress, Source, unpacked_head, utf16
from doctor.readers.formats.compression import compression
from doctor.readers.mlflow import belongs_to_run
from doctor.readers.tensorboard.reader import OURS
from doctor.readers.walk import Reason, Skipped, natural_sort_key, walk
from doctor.support.files import file_size
from doctor.support.optional import pip_install

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_OWN_REPORT = re.compile(rb'"tool": ?\{\s*"name": ?"lfdoctor"')
OWN: Reason = "written by lfdoctor"
"""Reason for which our own files are skipped."""
PATCHED = re.compile(r"patched(?:-\d+)?\.yaml")
"""Names under which `lfdoctor run` writes its patch into its folder."""
_OWN_JOURNALS = ("lfdoctor-run.jsonl", "lfdoctor.jsonl")
COMMAND = "command.sh"
"""Script with the command of a run, as `lfdoctor run` writes it next to the console."""
_STARTED_ABOVE = 3
"""Folders above command.sh in which the command may have been started."""
_TEXT_BYTES = bytes(byte for byte in range(256) if byte >= 32 or byte in b"\t\n\r\f\b\x1b")
_MAX_BINARY_SHARE = 0.02
"""Share of other bytes in the head of a file that is still taken for text."""
_STREAMS = {".out": 0, ".stdout": 0, ".err": 1, ".stderr": 1}
"""Suffixes of one job's standard output and standard error, in reading order."""


class FoundFiles:
    """Files with their readers (`files`, logs last), the report's list of sources, and what was skipped."""

    def __init__(self, readers: Sequence[Reader], progress: Progress | None = None) -> None:
        self.files: list[tuple[Reader, File]] = []
        self.sources: list[Source] = []
        self.skipped = Skipped()
        self._seen: set[Path] = set()
        self._readers, self._progress = readers, progress

    def add(self, path: str | Path) -> None:
        """Add a folder, a file, an archive, a URL or `-` (standard input). Raises DoctorError (3) if there is no such thing."""
        root = Path(path)
        if str(path) == "-":
            self._add_stdin()
        elif remote.is_url(str(path)):
            self._add_temporary(remote.fetch(str(path), self.skipped), str(path))
        elif root.is_dir():
            for file in walk(root, self.skipped):
                if _is_own_patch(file):
                    self.skipped.note(OWN, str(file))
                elif not belongs_to_run(file):
                    self._claim(file, explicit=False)
        elif root.is_file() and remote.is_archive(root):
            self._add_temporary(remote.unpack(root, self.skipped), str(path))
        elif root.is_file():
            self._claim(root, explicit=True)
            self._claim_stream_of(root)
        else:
            what = "is neither a file nor a folder" if root.exists() else "no such file or folder"
            raise DoctorError(f"{path}: {what}", NOTHING_TO_READ)
        self.files.sort(key=_reading_order)

    def replace(self, path: Path, source: Source) -> None:
        """Take `path` out of the files and put `source` first in the list of sources."""
        self.files = [(reader, file) for reader, file in self.files if not _same_file(file.path, path)]
        self.sources = [source, *(other for other in self.sources if other.path != str(path))]

    def drop_folder(self, folder: Path) -> None:
        """Leave out the files of a folder that another run wrote."""
        for _, file in self.files:
            if folder in file.path.parents:
                file.source.problem("not used: another run wrote it")
        self.files = [(reader, file) for reader, file in self.files if folder not in file.path.parents]

    def drop_file(self, path: Path) -> None:
        """Leave out a file that another run wrote."""
        for _, file in self.files:
            if file.path == path:
                file.source.problem("not used: another run wrote it")
        self.files = [(reader, file) for reader, file in self.files if file.path != path]

    def add_named_configs(self) -> None:
        """Add the training YAML that a command.sh names, if it lies where the command was probably started.

        That is a folder above the script, or the current one. Commands that are only pasted into a log may be somebody else's.
        """
        for reader, file in list(self.files):
            if file.path.name != COMMAND:
                continue
            names = [event.value for event in reader.configs(file) if isinstance(event, Fact) and event.name == "config.named"]
            file.source.records = 0  # the file is read again
            for name in names:
                folders = [*file.path.absolute().parents[1 : 1 + _STARTED_ABOVE], Path.cwd(), file.path.parent]
                path = next((folder / str(name) for folder in folders if (folder / str(name)).is_file()), None)
                if path is not None and not any(_same_file(known.path, path) for _, known in self.files):
                    self._claim(path, explicit=False)

    def add_tracked_consoles(self) -> None:
        """Add the console output that trackers' files contain, unless there is a console log: both would tell the same."""
        if any(reader.kind == Console.kind for reader, _ in self.files):
            return
        for reader, tracked in list(self.files):
            if not isinstance(reader, ReaderBase):
                continue
            source = Source(f"{tracked.name} (console)", Console.kind, 0)
            stream = io.BufferedReader(IteratorStream(reader.console(tracked)))
            file = File(tracked.path, source.path, source, stream, self._progress)
            if file.peek(1):
                self.sources.append(source)
                self.files.append((Console(), file))

    def _claim_stream_of(self, path: Path) -> None:
        """Add the other stream of a job whose `.out` or `.err` the user named."""
        for suffix in _STREAMS if path.suffix.lower() in _STREAMS else ():
            other = path.with_suffix(suffix)
            if other != path and _STREAMS[suffix] != _STREAMS[path.suffix.lower()] and other.is_file():
                self._claim(other, explicit=False)

    def _add_temporary(self, folder: Path, name: str) -> None:
        """Add unpacked or downloaded files under the name that the user knows; they are deleted with this object."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        files = list(walk(folder, self.skipped))
        for file in files:
            inside = file.relative_to(folder).as_posix()
            shown = name if len(files) == 1 and remote.is_url(name) and name.endswith(inside) else f"{name.rstrip('/')}/{inside}"
            if not belongs_to_run(file):
                self._claim(file, explicit=len(files) == 1, shown=shown)

    def _add_stdin(self) -> None:
        source = Source("-", "", 0)
        file = File(Path("-"), "-", source, sys.stdin.buffer, self._progress)
        head = file.peek(HEAD)
        metrics = [reader for reader in self._readers if reader.lane == "metrics"]
        names = (Path("-.jsonl"), Path("-.json"))
        reader = next((reader for name in names for reader in metrics if reader.claims(name, head)), Console())
        source.kind = reader.kind
        self.sources.append(source)
        if head:
            self.files.append((reader, file))

    def _claim(self, path: Path, *, explicit: bool, shown: str | None = None) -> None:
        """Give the file to the first reader that claims it. One that the user named (`explicit`) is a source even if none does."""
        if path.absolute() in self._seen:
            return
        self._seen.add(path.absolute())
        head = unpacked_head(path)
        shown = str(path) if shown is None else shown
        source = Source(shown, "", file_size(path))
        reader = next((reader for reader in self._readers if reader.claims(path, head)), None)
        if not explicit and (path.name.endswith(OURS) or (path.suffix == ".json" and _OWN_REPORT.search(head))):
            self.skipped.note(OWN, shown)
            return
        if head.startswith(_LFS_POINTER):
            if reader is not None or explicit:
                source.kind = "git-LFS pointer"
                source.problem("git-LFS pointer: the file itself is not here (git lfs pull)")
                self.sources.append(source)
            return
        if compression(head) == "zstd":  # still compressed: the library is missing
            source.kind = "zstd"
            source.problem(f"not read: zstd needs the package zstandard: {pip_install('zstd')}")
            self.sources.append(source)
            return
        if reader is None and explicit:
            reader = _console_if_text(head, source)
        if reader is not None:
            source.kind = reader.kind
            self.files.append((reader, File(path, shown, source, progress=self._progress)))
        elif not explicit:
            self.skipped.note("not known" if head else "empty", shown)
        if reader is not None or explicit:
            self.sources.append(source)


def _reading_order(found: tuple[Reader, File]) -> tuple[Any, ...]:
    """Sort key: logs last, standard output before standard error of one job, otherwise by name in natural order."""
    reader, file = found
    suffix = file.path.suffix.lower()
    stem = re.sub(r"(?i)std(?:out|err)", "std", file.path.stem if suffix in _STREAMS else file.path.name)
    stream = _STREAMS.get(suffix, "err" in file.path.name.lower())
    return (reader.lane == "text", natural_sort_key(str(file.path.parent)), natural_sort_key(stem), stream)


def _console_if_text(head: bytes, source: Source) -> Reader | None:
    """A file that the user named and no reader claims is read as a log if it is text."""
    if not head:
        source.problem("is empty" if source.bytes == 0 else "cannot be read")
        return None
    if utf16(head) is None and len(head.translate(None, _TEXT_BYTES)) > _MAX_BINARY_SHARE * len(head):
        source.problem("binary data in a format that is not known")
        return None
    return Console()


def _is_own_patch(path: Path) -> bool:
    """Whether the file is the patch that `lfdoctor run` wrote after the run: a proposal, not what was trained with."""
    return PATCHED.fullmatch(path.name) is not None and any((path.parent / name).exists() for name in _OWN_JOURNALS)


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False
