"""A large console is looked through by a second process, a few blocks ahead of the first one, which reads what was found.

    python -P -m doctor.readers.console.prefilter_process

takes a task on standard input, then where to begin, and writes each block's finds. The first process reads the same file in the same
blocks. Where the second one does not start, dies, says nothing or has other blocks (the file was written to), the first one goes on alone,
with the same result: only the clock tells them apart.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from array import array
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from doctor.readers.base import File, Source, packed
from doctor.readers.console.finder import Finder, State, Wanted
from doctor.readers.console.scan import Found, blocks, text_only
from doctor.support.decoding import unpack
from doctor.support.optional import package_folder
from doctor.support.subprocesses import receive, send, start, streams

LARGE = 64 << 20
"""A file of so many bytes (an eighth of it where they are compressed) is worth a second process: it takes 0.2 s to start."""
PATIENCE = 60.0
"""Seconds after which a second process that says nothing is given up."""
_HELD = 16


class Task(msgspec.Struct, frozen=True):
    """What the second process is to do."""

    path: str
    wanted: Wanted


class Begin(msgspec.Struct, frozen=True):
    """Where it begins: at an offset of a block, whose number counts from 0."""

    block: int
    offset: int
    state: State


class BlockResult(msgspec.Struct, frozen=True, gc=False):
    """What was found in a block of `size` bytes, and how far the finder is then.

    `finds`: four unsigned numbers a find, as `Found` has them: all ends, then all lines' numbers, and so on.
    """

    size: int
    state: State
    lines: int
    finds: bytes


class _Line:
    """Between the thread that talks with the second process and the reading one."""

    def __init__(self) -> None:
        self.begin: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.told: queue.Queue[BlockResult | None] = queue.Queue(_HELD)
        self.over = threading.Event()

    def pass_on(self, one: BlockResult | None) -> None:
        """Waits for a place as long as somebody may take what is there."""
        while not self.over.is_set():
            with contextlib.suppress(queue.Full):
                self.told.put(one, timeout=1.0)
                return


def worthwhile(file: File) -> bool:
    """Whether a second process would have enough to do and a processor to do it on."""
    if file.streamed or not Path(sys.executable or "").name.lower().startswith(("python", "pypy")):
        return False  # also where Python lives inside another program
    if package_folder("hyperscan", "fast") is None or package_folder("numpy", "fast") is None:
        return False
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with file.path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size * (8 if packed(opened.read(6)) else 1)
    except OSError:
        return False
    return processors > 1 and size >= LARGE


class PrefilterProcess:
    """The first process's side: what a `Finder` gives for the blocks from `begin` on."""

    def __init__(self, file: File, wanted: Wanted) -> None:
        self._wanted, self._state = wanted, State()
        self._own: Finder | None = None
        self._line = _Line()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = start("doctor.readers.console.prefilter_process", session=True)
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
        self._line.begin.put(msgspec.msgpack.encode(Begin(skipped, offset, state)))

    def scan(self, block: bytes) -> Found | None:
        """As Finder.scan; None where there is no engine."""
        if self._process is not None:
            with contextlib.suppress(queue.Empty):
                told = self._line.told.get(timeout=PATIENCE)
                if told is not None and told.size == len(block):
                    self._state = told.state
                    finds = array("I", told.finds)
                    number = len(finds) // 4
                    return Found(told.lines, *(finds[place * number : (place + 1) * number].tolist() for place in range(4)))
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
    with contextlib.suppress(OSError, ValueError, OverflowError, MemoryError, msgspec.MsgspecError), answers, asked:
        send(asked, task)
        if (where := line.begin.get()) is not None:
            send(asked, where)
            while (told := receive(answers)) is not None:
                line.pass_on(unpack(told, BlockResult))
    line.pass_on(None)


def main() -> None:
    """The second process."""
    asked, answers = streams()
    given, where = receive(asked), receive(asked)
    if given is None or where is None:
        return
    task, begin = unpack(given, Task), unpack(where, Begin)
    finder = Finder.made(task.wanted, begin.state)
    if finder is None:
        return
    file = File(Path(task.path), task.path, Source(task.path, "console", 0))
    with contextlib.suppress(OSError):
        for data, _ in islice(blocks(text_only(file.chunks())), begin.block, None):
            block = data[begin.offset :]
            begin = msgspec.structs.replace(begin, offset=0)
            found = finder.scan(block)
            finds = b"".join(array("I", part).tobytes() for part in found[1:])
            send(answers, msgspec.msgpack.encode(BlockResult(len(block), finder.state, found.lines, finds)))


if __name__ == "__main__":
    main()
