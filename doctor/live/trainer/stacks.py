"""The stacks of all threads of a training process, written to a file by faulthandler: needs neither the GIL nor a working thread.

`lfdoctor run` requests them with an unused real-time signal; the callback writes them itself after a long silence.
`doctor.readers.stacks` reads the file. Standard library only.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from pathlib import Path
from typing import IO

NAME = "lfdoctor-stacks-rank{rank}.txt"
LIMIT = 4 << 20
"""Bytes; a larger file gets no further stacks. A dump of a training is 20 to 60 KB."""


class StackFile:
    """The file of one rank in `folder`; created with the first stacks or the first registration. Raises OSError."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.rank, self.path = rank, folder / NAME.format(rank=rank)
        self._file: IO[bytes] | None = None

    def listen(self) -> int | None:
        """Register a signal that writes the stacks; returns its number, None if this system has no free one."""
        number = free_signal() if hasattr(faulthandler, "register") else None
        if number is not None:
            file = self._open()
            faulthandler.register(number, file=file, all_threads=True, chain=False)
            main = threading.main_thread().ident or 0
            file.write(f"lfdoctor listens: rank {self.rank} pid {os.getpid()} signal {number} thread 0x{main:016x}\n".encode())
        return number

    def write(self, step: int, silent_seconds: float, thread: int) -> None:
        """Write the stacks now. `thread` is the identity of the training thread."""
        file = self._open()
        if file.seek(0, os.SEEK_END) > LIMIT:
            return
        file.write(header_line(self.rank, os.getpid(), step, silent_seconds, thread))
        faulthandler.dump_traceback(file, all_threads=True)

    def note_lock(self, kind: str, path: str) -> None:
        """This process waits for a lock file (see lock_watch)."""
        self._open().write(f"lfdoctor lock: rank {self.rank} pid {os.getpid()} {kind} {path}\n".encode(errors="surrogateescape"))

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        return self._file


def header_line(rank: int, pid: int, step: int, silent_seconds: float, thread: int | None = None, *, worker: bool = False) -> bytes:
    """The header line above a dump: whose it is and why it was requested. `worker`: a process that the rank has started."""
    which = (f" thread 0x{thread:016x}" if thread is not None else "") + (" worker" if worker else "")
    return f"\nlfdoctor asks: rank {rank} pid {pid} step {step} silent {silent_seconds:.0f} time {time.time():.0f}{which}\n".encode()


def free_signal() -> int | None:
    """A real-time signal that neither Python nor any library of this process handles, ignores or blocks (Linux)."""
    if not hasattr(signal, "SIGRTMAX"):
        return None
    taken = caught(os.getpid()) | _masks(os.getpid(), ("SigIgn", "SigBlk"))
    wanted = range(signal.SIGRTMAX - 3, signal.SIGRTMIN + 3, -1)
    return next((number for number in wanted if number not in taken and signal.getsignal(number) is signal.SIG_DFL), None)


def caught(pid: int) -> frozenset[int]:
    """Signals a process has a handler for (Linux); it may die of any other real-time signal. Raises OSError."""
    return _masks(pid, ("SigCgt",))


def _masks(pid: int, names: tuple[str, ...]) -> frozenset[int]:
    out: set[int] = set()
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, mask = line.partition(":")
        if name in names:
            bits = int(mask, 16)
            out |= {number for number in range(1, 65) if bits >> (number - 1) & 1}
    return frozenset(out)
