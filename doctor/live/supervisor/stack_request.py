"""Asks the ranks of a silent training, and the processes that they have started, where they stand; notes what locks they wait for."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from doctor.live.trainer import stacks
from doctor.readers.walk import natural_sort_key
from doctor.support.process_tree import descendants

MAX_WORKERS = 8
"""Processes of one rank that are asked; a data loader's workers do the same, and each may take three seconds."""
_LISTENS = re.compile(rb"lfdoctor listens: rank (\d{1,9}) pid (\d{1,9}) signal (\d{1,2}) thread 0x([0-9a-f]{1,16})")
_NAMED = re.compile(rb"lfdoctor lock: rank \d{1,9} pid (\d{1,9}) (exists|flock) (.+)")
_BLOCKED = re.compile(r"\d+: -> (?:FLOCK|POSIX|OFDLCK) +\S+ +\S+ +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ")
_HELD = re.compile(r"\d+: (?:FLOCK|POSIX|OFDLCK) +\S+ +\S+ +(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ")
"""Lines of /proc/locks: proc(5)."""


class RankProcess(msgspec.Struct, frozen=True):
    """A process that writes its stacks to `path` when it gets `signal`."""

    rank: int
    pid: int
    signal: int
    thread: int
    path: Path
    worker: bool = False


def ask(ranks: list[RankProcess], step: int, silence: float) -> None:
    """Let the ranks and their workers write their stacks, and note who holds the locks that they wait for."""
    for rank in ranks:
        _note_lock(rank)
        _request_stacks(rank, step, silence)
        for worker in _workers(rank):
            _request_stacks(worker, step, silence)


def listening(folder: Path, pid: int) -> Iterator[RankProcess]:
    """The ranks among the descendants of `pid` that can be asked. Only those with a handler: the signal would kill any other process."""
    ours = {pid, *descendants(pid)}
    found: dict[int, RankProcess] = {}
    for path in sorted(folder.glob("lfdoctor-stacks-rank*.txt"), key=lambda path: natural_sort_key(path.name)):
        with contextlib.suppress(OSError):
            for match in _LISTENS.finditer(path.read_bytes()):
                rank, process, number, thread = int(match[1]), int(match[2]), int(match[3]), int(match[4], 16)
                found[process] = RankProcess(rank, process, number, thread, path)  # a rank that was learned late replaces the first
    for rank_process in found.values():
        if rank_process.pid in ours and _can_be_asked(rank_process):
            yield rank_process


def _workers(rank: RankProcess) -> list[RankProcess]:
    """Forks of the rank (of a data loader, of a pool that tokenizes): they have inherited its handler, its file and its main thread's
    identity. Those that were started anew have not, and are left alone."""
    forks = (msgspec.structs.replace(rank, pid=pid, worker=True) for pid in descendants(rank.pid))
    return [fork for fork in forks if _can_be_asked(fork)][:MAX_WORKERS]


def _can_be_asked(process: RankProcess) -> bool:
    with contextlib.suppress(OSError):
        return process.signal in stacks.caught(process.pid) and process.path.stat().st_size < stacks.LIMIT
    return False


def _request_stacks(process: RankProcess, step: int, silence: float) -> None:
    """Let one process write its stacks to its file; waits at most three seconds for them."""
    with contextlib.suppress(OSError):
        with process.path.open("ab") as file:
            file.write(stacks.header_line(process.rank, process.pid, step, silence, process.thread, worker=process.worker))
        before = size = process.path.stat().st_size
        os.kill(process.pid, process.signal)
        for _ in range(30):
            time.sleep(0.1)
            last, size = size, process.path.stat().st_size
            if size > before and size == last:
                return


def _note_lock(rank: RankProcess) -> None:
    """Write down what is known of the lock file that a rank waits for: how old it is, and which process of this machine holds it.

    The rank itself has named it (lock_watch.py), or the system makes it wait (flock, lockf), which no stack tells.
    """
    with contextlib.suppress(OSError):
        named = [found for found in _NAMED.finditer(rank.path.read_bytes()) if int(found[1]) == rank.pid]
        kind, path = (named[-1][2].decode(), os.fsdecode(named[-1][3])) if named else ("flock", "")
        blocked = _blocked(rank.pid)
        if blocked is not None:
            kind, path = "blocked", blocked
        if path:
            text = f"lfdoctor waits: rank {rank.rank} pid {rank.pid} {kind} {_state(rank, kind, path)} {path}\n"
            with rank.path.open("ab") as file:
                file.write(text.encode(errors="surrogateescape"))


def _state(rank: RankProcess, kind: str, path: str) -> str:
    """`age SECONDS` of a file that is older than the process that waits until it is gone, else 0, and `holder PID NAME` of a system lock.

    The age of a file with a system lock means nothing: such a lock ends with its process.
    """
    changed = Path(path).stat().st_mtime
    age = round(time.time() - changed) if kind == "exists" and changed < _started(rank.pid) else 0
    by = None if kind == "exists" else _holder(path)
    return f"age {age} holder {by or 0} {_name(by)}"


def _blocked(pid: int) -> str | None:
    """The file whose lock the system makes a process wait for."""
    waits = (found for found in _BLOCKED.finditer(_locks()) if int(found[1]) == pid)
    return next((path for found in waits if (path := _open_file(pid, _file_of(found))) is not None), None)


def _holder(path: str) -> int | None:
    """The process that holds the system's lock of a file; None if none of this machine does."""
    wanted = _identity(Path(path).stat())
    return next((int(found[1]) for found in _HELD.finditer(_locks()) if _file_of(found) == wanted), None)


def _locks() -> str:
    return Path("/proc/locks").read_text(encoding="ascii", errors="replace")


def _file_of(line: re.Match[str]) -> tuple[int, int, int]:
    """Device and inode of a line of /proc/locks, as stat has them."""
    return int(line[2], 16), int(line[3], 16), int(line[4])


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return os.major(status.st_dev), os.minor(status.st_dev), status.st_ino


def _open_file(pid: int, identity: tuple[int, int, int]) -> str | None:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if _identity(entry.stat()) == identity:
                return str(entry.readlink())
    return None


def _name(pid: int | None) -> str:
    """The program of a process, as one word; `-` if it is not known."""
    with contextlib.suppress(OSError):
        return "_".join(Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").split()) or "-"
    return "-"


def _started(pid: int) -> float:
    """When a process began (seconds since the epoch)."""
    return Path(f"/proc/{pid}").stat().st_ctime
