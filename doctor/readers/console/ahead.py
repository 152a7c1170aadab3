"""A large console is looked through by a second process, a few blocks ahead of the first one, which reads what was found.

    python -P -m doctor.readers.console.ahead

takes a task on standard input, then where to begin, and writes each block's finds. The first process reads the same file in the same
blocks. Where the second one does not start, dies, says nothing or has other blocks (the file was written to), the first one goes on alone,
with the same result: only the clock tells them apart.
"""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from doctor.readers.base import File, Source, packed
from doctor.readers.console.finder import Finder, How, State, Wanted
from doctor.readers.console.scan import blocks, text_only
from doctor.typed import unpack

LARGE = 64 << 20
"""A file of so many bytes (an eighth of it where they are compressed) is worth a second process: it takes 0.2 s to start."""
PATIENCE = 60.0
"""Seconds after which a second process that says nothing is given up."""
_HELD = 64
_SIZE = struct.Struct("<Q")
_BEGIN = struct.Struct("<QQ")
_FOUND = struct.Struct("<QQBI")
_HOW: tuple[How, ...] = ("literals", "literals!", "expressions")


class Task(msgspec.Struct, frozen=True):
    """What the second process is to do."""

    path: str
    wanted: Wanted


class _Found(NamedTuple):
    size: int
    state: State
    ends: list[int]


def worthwhile(file: File) -> bool:
    """Whether a second process would have enough to do and a processor to do it on."""
    if file.streamed or not sys.executable:
        return False
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with file.path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size * (8 if packed(opened.read(6)) else 1)
    except OSError:
        return False
    return processors > 1 and size >= LARGE


class Ahead:
    """The first process's side: what a `Finder` gives for the blocks from `begin` on."""

    def __init__(self, file: File, wanted: Wanted) -> None:
        self._wanted, self._state = wanted, State()
        self._own: Finder | None = None
        self._told: queue.Queue[_Found | None] = queue.Queue(_HELD)
        self._process: subprocess.Popen[bytes] | None = None
        path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
        with contextlib.suppress(OSError, ValueError):
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "doctor.readers.console.ahead"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        task = msgspec.msgpack.encode(Task(str(file.path.absolute()), wanted))
        self._say(_SIZE.pack(len(task)) + task)

    def begin(self, skipped: int, state: State) -> None:
        """The next block to be asked about is number `skipped`, from 0."""
        self._state = state
        if self._say(_BEGIN.pack(skipped, state.finds)) and self._process is not None and self._process.stdout is not None:
            threading.Thread(target=_listen, args=(self._process.stdout, self._told), daemon=True).start()
        else:
            self._alone()

    def scan(self, block: bytes) -> list[int] | None:
        """As Finder.scan; None where there is no engine."""
        if self._process is not None:
            with contextlib.suppress(queue.Empty):
                told = self._told.get(timeout=PATIENCE)
                if told is not None and told.size == len(block):
                    self._state = told.state
                    return told.ends
            self._alone()
        return None if self._own is None else self._own.scan(block)

    def _alone(self) -> None:
        self.close()
        self._own = Finder.made(self._wanted, self._state)

    def close(self) -> None:
        """Ends the second process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()

    def _say(self, data: bytes) -> bool:
        try:
            if self._process is None or self._process.stdin is None:
                return False
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True


def _listen(pipe: BinaryIO, told: queue.Queue[_Found | None]) -> None:
    """Passes on what the second process writes, then None; ends where nobody takes it any more."""
    with contextlib.suppress(queue.Full):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for found in _messages(pipe):
                told.put(found, timeout=PATIENCE)
        told.put(None, timeout=PATIENCE)


def _messages(pipe: BinaryIO) -> Iterator[_Found]:
    while len(head := pipe.read(_FOUND.size)) == _FOUND.size:
        size, count, how, number = _FOUND.unpack(head)
        ends = array("I")
        ends.frombytes(pipe.read(number * ends.itemsize))
        if len(ends) != number:
            return
        yield _Found(size, State(count, _HOW[how]), ends.tolist())


def main() -> None:
    """The second process. What libraries print goes nowhere: standard output is the line to the first one."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(struct.error, OSError):
        task = unpack(asked.read(_SIZE.unpack(asked.read(_SIZE.size))[0]), Task)
        skipped, count = _BEGIN.unpack(asked.read(_BEGIN.size))
        finder = Finder.made(task.wanted, State(count))
        file = File(Path(task.path), task.path, Source(task.path, "console", 0))
        for number, (data, _) in enumerate(blocks(text_only(file.chunks()))):
            if finder is None or number < skipped:
                continue
            ends = array("I", finder.scan(data))
            state = finder.state
            answers.write(_FOUND.pack(len(data), state.finds, _HOW.index(state.how), len(ends)) + ends.tobytes())
            answers.flush()


if __name__ == "__main__":
    main()
