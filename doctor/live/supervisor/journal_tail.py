"""Follows the journal of a running training: warnings on standard error, and lines for whoever else listens.

Where the trainer calls no callbacks, the steps come from the copy of its output.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from doctor.live.supervisor.console_tail import ConsoleTail
from doctor.live.trainer.monitor import Monitor
from doctor.support.files import file_size
from doctor.words import catalogue

PERIOD_SECONDS = 0.5
"""Between two looks; the recorder writes as often."""


class Listeners(msgspec.Struct, frozen=True):
    """`lines` get the journal's lines as they come, `texts` every warning and how the run ended."""

    lines: tuple[Callable[[bytes], None], ...] = ()
    texts: tuple[Callable[[str], None], ...] = ()

    def tell(self, text: str) -> None:
        """Give `text` to all of `texts`."""
        for listener in self.texts:
            listener(text)


class JournalTail:
    """Reads what is appended to `path` while the `with` lasts; `first` are lines of another journal that the warnings need to know.

    An error in here ends the warnings, never the run.
    """

    def __init__(self, path: Path, listeners: Listeners, first: Sequence[bytes] = ()) -> None:
        self._listeners, self._first = listeners, first
        self.warned: list[str] = []
        self._monitor = Monitor(self.tell, str(path))
        self._path, self._offset, self._rest = path, file_size(path), b""
        self._console = ConsoleTail(path.with_name("console.log"), self._no_callbacks)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="lfdoctor-tail", daemon=True)

    def __enter__(self) -> JournalTail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(5)

    def tell(self, text: str) -> None:
        """A warning: on standard error, and to the listeners."""
        self.warned.append(text)
        self._listeners.tell(text)
        print(f"lfdoctor: {text}", file=sys.stderr, flush=True)

    def _no_callbacks(self) -> None:
        self.tell(catalogue.say("live.no_callbacks", catalogue.user_language()))

    def _follow(self) -> None:
        try:
            for line in self._first:
                self._monitor.line(line)
            while not self._done.wait(PERIOD_SECONDS):
                self._read()
            self._read()
            self._monitor.close()
        except Exception as error:
            self.tell(f"no more warnings: {type(error).__name__}: {error}")

    def _read(self) -> None:
        self._read_journal()
        self._hear(self._console.lines())

    def _read_journal(self) -> None:
        size = file_size(self._path)
        if size < self._offset:  # rotated
            self._offset, self._rest = 0, b""
        if size == self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(size - self._offset)
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if any(b'"type":"Step"' in line for line in lines):
            self._console.not_needed()
        self._hear(lines)

    def _hear(self, lines: list[bytes]) -> None:
        for line in lines:
            self._monitor.line(line)
            for listener in self._listeners.lines:
                listener(line)
