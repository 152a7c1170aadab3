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
import signal
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from doctor.readers.base import File, Source, packed
from doctor.readers.console.finder import Finder, How, State, Wanted
from doctor.readers.console.scan import Found, blocks, text_only
from doctor.typed import unpack

LARGE = 64 << 20
"""A file of so many bytes (an eighth of it where they are compressed) is worth a second process: it takes 0.2 s to start."""
PATIENCE = 60.0
"""Seconds after which a second process that says nothing is given up."""
_HELD = 16
_SIZE = struct.Struct("<Q")
_BEGIN = struct.Struct("<QQQ")
_HEAD = struct.Struct("<QQBQI")
_HOW: tuple[How, ...] = ("literals", "literals!", "expressions")


class Task(msgspec.Struct, frozen=True):
    """What the second process is to do."""

    path: str
    wanted: Wanted


class _Told(NamedTuple):
    size: int
    state: State
    lines: int
    finds: array[int]
    """Of each find its four numbers, as `Found` has them: all ends, then all lines' numbers, and so on."""


class _Line:
    """Between the thread that talks with the second process and the reading one."""

    def __init__(self) -> None:
        self.begin: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.told: queue.Queue[_Told | None] = queue.Queue(_HELD)
        self.over = threading.Event()

    def pass_on(self, one: _Told | None) -> None:
        """Waits for a place as long as somebody may take what is there."""
        while not self.over.is_set():
            with contextlib.suppress(queue.Full):
                self.told.put(one, timeout=1.0)
                return


def worthwhile(file: File) -> bool:
    """Whether a second process would have enough to do and a processor to do it on."""
    if file.streamed or not Path(sys.executable or "").name.lower().startswith(("python", "pypy")):
        return False  # also where Python lives inside another program
    if find_spec("hyperscan") is None:
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
        self._line = _Line()
        self._process: subprocess.Popen[bytes] | None = None
        path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "doctor.readers.console.ahead"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )  # fmt: skip
            task = msgspec.msgpack.encode(Task(str(file.path.absolute()), wanted))
            threading.Thread(target=_talk, args=(self._process.stdin, self._process.stdout, task, self._line), daemon=True).start()
        except (OSError, ValueError, RuntimeError):  # no more processes, no more threads
            process = self._process
            self.close()
            if process is not None and process.stdin is not None and process.stdout is not None:
                process.stdin.close()
                process.stdout.close()

    def begin(self, skipped: int, offset: int, state: State) -> None:
        """The next block to be asked about is number `skipped`, from 0, without its first `offset` bytes."""
        self._state = state
        self._line.begin.put(_BEGIN.pack(skipped, offset, state.finds))

    def scan(self, block: bytes) -> Found | None:
        """As Finder.scan; None where there is no engine."""
        if self._process is not None:
            with contextlib.suppress(queue.Empty):
                told = self._line.told.get(timeout=PATIENCE)
                if told is not None and told.size == len(block):
                    self._state = told.state
                    number = len(told.finds) // 4
                    return Found(told.lines, *(told.finds[place * number : (place + 1) * number].tolist() for place in range(4)))
        if self._own is None:
            self.close()
            self._own = Finder.made(self._wanted, self._state)
        return None if self._own is None else self._own.scan(block)

    def close(self) -> None:
        """Ends the second process; its pipes are the thread's."""
        process, self._process = self._process, None
        if process is None:
            return
        self._line.over.set()
        self._line.begin.put(None)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        process.wait()


def _talk(asked: BinaryIO, answers: BinaryIO, task: bytes, line: _Line) -> None:
    """All that goes through the pipes, of which each can block for as long as the other side likes."""
    with contextlib.suppress(OSError, ValueError), answers, asked:
        asked.write(_SIZE.pack(len(task)) + task)
        asked.flush()
        if (where := line.begin.get()) is not None:
            asked.write(where)
            asked.flush()
            for one in _messages(answers):
                line.pass_on(one)
    line.pass_on(None)


def _messages(pipe: BinaryIO) -> Iterator[_Told]:
    while len(head := pipe.read(_HEAD.size)) == _HEAD.size:
        size, finds, how, lines, number = _HEAD.unpack(head)
        told = array("I")
        told.frombytes(pipe.read(4 * number * told.itemsize))
        if len(told) != 4 * number:
            return
        yield _Told(size, State(finds, _HOW[how]), lines, told)


def main() -> None:
    """The second process. What libraries print goes nowhere: standard output is the line to the first one."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(struct.error, OSError):
        task = unpack(asked.read(_SIZE.unpack(asked.read(_SIZE.size))[0]), Task)
        skipped, offset, count = _BEGIN.unpack(asked.read(_BEGIN.size))
        finder = Finder.made(task.wanted, State(count))
        file = File(Path(task.path), task.path, Source(task.path, "console", 0))
        for number, (data, _) in enumerate(blocks(text_only(file.chunks()))):
            if finder is None or number < skipped:
                continue
            block = data[offset:] if number == skipped else data
            found, state = finder.scan(block), finder.state
            head = _HEAD.pack(len(block), state.finds, _HOW.index(state.how), found.lines, len(found.ends))
            answers.write(b"".join((head, *(array("I", part).tobytes() for part in found[1:]))))
            answers.flush()


if __name__ == "__main__":
    main()
