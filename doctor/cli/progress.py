"""Reading progress on standard error, drawn by rich: on a terminal only, and only if reading takes more than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from doctor.readers.file import Progress as ReadingProgress

DELAY_SECONDS = 1.0
"""Nothing is drawn earlier: most runs are read faster, and rich.progress takes 50 ms to import."""


class _ReadingProgress:
    """Called by the readers for each chunk: the file, the chunk's bytes (decompressed), the file's size (0 if unknown)."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._file = ""
        self._read = 0
        self._shown: Progress | None = None

    def __call__(self, file: str, size: int, whole: int) -> None:
        if file != self._file:
            self._file, self._read = file, 0
        self._read += size
        if self._shown is None and time.monotonic() - self._started >= DELAY_SECONDS:
            self._shown = _progress()
        if self._shown is not None:
            name = "".join(character if character.isprintable() else "?" for character in file[-50:])
            total = whole if whole >= self._read else None  # a compressed file is longer than its size
            self._shown.update(self._shown.task_ids[0], description=name, completed=self._read, total=total)

    def close(self) -> None:
        """Remove what was drawn."""
        if self._shown is not None:
            self._shown.stop()


def progress_bar(*columns: Any) -> Progress:
    """A bar of rich columns on standard error, not yet started; disabled if that is not a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _progress() -> Progress:
    from rich.progress import BarColumn, DownloadColumn, TextColumn

    shown = progress_bar(TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    shown.add_task("", total=None)
    shown.start()
    return shown


@contextmanager
def shown_progress() -> Iterator[ReadingProgress | None]:
    """The `progress` to pass to the readers while the block runs; None if nothing would be shown."""
    if not sys.stderr.isatty():
        yield None
        return
    progress = _ReadingProgress()
    try:
        yield progress
    finally:
        progress.close()
