"""The folder of a watched run: held by one run at a time, and emptied of what an earlier run left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from doctor.errors import DoctorError

LOCK = ".lfdoctor.lock"
RESERVE = ".lfdoctor-reserve.lock"
"""The endings make readers skip these files."""
RESERVE_BYTES = 4 << 20
"""Disk space set aside for the end of a run: console tail, journal and report (100 KB to 2 MB) still fit when checkpoints have filled
the disk."""
_OURS = re.compile(
    r"lfdoctor.*\.jsonl|lfdoctor-(?:stacks|nccl|memory)-rank.*|console\.log|command\.sh|report\.json"
    r"|attempt-\d+|attempt-\d+\.yaml|resume-\d+|repeat(?:-\d+)?(?:\.yaml|\.json)?|patched(?:-\d+)?\.yaml"
)
"""What `lfdoctor run` writes into its folder."""


class RunFolder:
    """Holds `folder` while the `with` lasts. Raises DoctorError (2) if it cannot be written or another run uses it.

    Files of an earlier run are moved to a new folder next to it (`folder.1`, `folder.2`, ...): whoever reads this folder reads one run.
    If a word of `command` names a file in here, configs and checkpoints of the earlier run stay.
    """

    def __init__(self, folder: Path, command: Sequence[str] = (), *, reserve: bool = True) -> None:
        self.folder, self._wants_reserve = folder, reserve
        self._command = list(command)
        self._lock: int | None = None

    def __enter__(self) -> RunFolder:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._claim(self._lock)
            self._move_earlier_run()
        except OSError as error:
            self.__exit__(None, None, None)
            raise DoctorError(f"cannot write {self.folder}: {error.strerror or error}") from error
        except DoctorError:
            self.__exit__(None, None, None)
            raise
        if self._wants_reserve:
            self._reserve()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release_reserve()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def holds(self, pid: int) -> None:
        """Record the training's process: it may outlive a killed `lfdoctor run`, and still writes here then."""
        with contextlib.suppress(OSError):
            if self._lock is not None:
                os.pwrite(self._lock, f"{os.getpid()} {pid} {_start_time(pid)}\n".encode(), 0)

    def release_reserve(self) -> None:
        """Free the reserved disk space."""
        with contextlib.suppress(OSError):
            (self.folder / RESERVE).unlink(missing_ok=True)

    def _claim(self, lock: int) -> None:
        words = os.pread(lock, 200, 0).split()
        holder = words[0].decode("ascii", "replace") if words else "unknown"
        if not _try_lock(lock):
            self._lock = None  # not ours to empty
            os.close(lock)
            raise DoctorError(f"{self.folder} is in use by another lfdoctor run (process {holder}): choose another folder with -o")
        if len(words) == 3 and words[1].isdigit() and _start_time(int(words[1])) == words[2].decode("ascii", "replace") != "":
            self._lock = None
            os.close(lock)
            raise DoctorError(
                f"the training of an earlier lfdoctor run (process {int(words[1])}) still runs and writes to {self.folder}: "
                "wait for it, end it, or choose another folder with -o"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _move_earlier_run(self) -> None:
        earlier = [path for path in self.folder.iterdir() if _OURS.fullmatch(path.name)]
        inside = self.folder.resolve()
        named = {Path(word).resolve() for word in self._command if word}
        if any(inside in path.parents for path in named):  # restarted from a config of an earlier healing
            earlier = [path for path in earlier if path.resolve() not in named and not path.name.endswith(".yaml")]
            earlier = [path for path in earlier if not path.name.startswith("resume-")]
        if not earlier:
            return
        target = _unused_sibling(inside)
        target.mkdir()
        for path in earlier:
            shutil.move(path, target / path.name)
        print(f"lfdoctor: {self.folder} held an earlier run; its files are in {target} now", file=sys.stderr, flush=True)

    def _reserve(self) -> None:
        """Best effort: a disk that is full already has nothing to reserve."""
        path = self.folder / RESERVE
        try:
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                else:
                    file.write(bytes(RESERVE_BYTES))
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _try_lock(fd: int) -> bool:
    """Whether the lock was free. A file system without locks cannot tell, and does not stop a run."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _start_time(pid: int) -> str:
    """The start of a living process in clock ticks since boot (field 22 of /proc/PID/stat, man proc); empty if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else ""


def _unused_sibling(folder: Path) -> Path:
    number = 1
    while (path := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return path
