"""Where every thread of a training process stands, written into a file of ours by faulthandler: needs neither the GIL nor a working thread.

`lfdoctor run` asks for it with a signal that nobody else uses; the callback asks for it itself when no event comes for long. Read by
`doctor.readers.stacks`. Standard library only.
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
"""A file that has grown beyond so many bytes gets no further stacks."""


class Stacks:
    """The file of one rank in `folder`; made with the first stacks or the first registration. Raises OSError like any file."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.rank, self.path = rank, folder / NAME.format(rank=rank)
        self._file: IO[bytes] | None = None

    def listen(self) -> int | None:
        """Lets a signal write the stacks; the signal's number, None where this system has none that is free."""
        number = free_signal() if hasattr(faulthandler, "register") else None
        if number is not None:
            file = self._open()
            faulthandler.register(number, file=file, all_threads=True, chain=False)
            main = threading.main_thread().ident or 0
            file.write(f"lfdoctor listens: rank {self.rank} pid {os.getpid()} signal {number} thread 0x{main:016x}\n".encode())
        return number

    def write(self, step: int, silent_seconds: float, thread: int) -> None:
        """The stacks now. `thread` is the identity of the one that trains."""
        file = self._open()
        if file.seek(0, os.SEEK_END) > LIMIT:
            return
        file.write(asked(self.rank, os.getpid(), step, silent_seconds, thread))
        faulthandler.dump_traceback(file, all_threads=True)

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        return self._file


def asked(rank: int, pid: int, step: int, silent_seconds: float, thread: int | None = None) -> bytes:
    """The line above some stacks that says whose they are and why they were asked for."""
    which = f" thread 0x{thread:016x}" if thread is not None else ""
    return f"\nlfdoctor asks: rank {rank} pid {pid} step {step} silent {silent_seconds:.0f} time {time.time():.0f}{which}\n".encode()


def free_signal() -> int | None:
    """A real-time signal that neither Python nor any library of this process handles, ignores or blocks (Linux)."""
    if not hasattr(signal, "SIGRTMAX"):
        return None
    taken = caught(os.getpid()) | _masks(os.getpid(), ("SigIgn", "SigBlk"))
    wanted = range(signal.SIGRTMAX - 3, signal.SIGRTMIN + 3, -1)
    return next((number for number in wanted if number not in taken and signal.getsignal(number) is signal.SIG_DFL), None)


def caught(pid: int) -> frozenset[int]:
    """The signals that a process has a handler for (Linux); to any other one it may die of a real-time signal. Raises OSError."""
    return _masks(pid, ("SigCgt",))


def _masks(pid: int, names: tuple[str, ...]) -> frozenset[int]:
    out: set[int] = set()
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, mask = line.partition(":")
        if name in names:
            bits = int(mask, 16)
            out |= {number for number in range(1, 65) if bits >> (number - 1) & 1}
    return frozenset(out)
