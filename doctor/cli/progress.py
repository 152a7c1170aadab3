"""Progress bars on standard error: only where that is a terminal, and gone at the end. Of one reading (analyze), of many runs (scan)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from doctor.readers.file import Progress

SHOW_AFTER_SECONDS = 1.0
"""Most readings are over before; nothing is shown for them, and rich is not imported."""
_NAME_CHARACTERS = 50


def progress_bar(*columns: Any) -> Bar:
    """A bar of rich columns, not yet started; disabled where standard error is no terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)


class _ReadingBar:
    """Shows which file is being read and how much of it. Called by the readers for every chunk."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._file = ""
        self._read = 0
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __call__(self, file: str, size: int, whole: int) -> None:
        if file != self._file:
            self._file, self._read = file, 0
        self._read += size
        if time.monotonic() - self._began < SHOW_AFTER_SECONDS:
            return
        if self._bar is None or self._task is None:
            from rich.progress import TextColumn

            self._bar = progress_bar(TextColumn("{task.description}", markup=False))
            self._task = self._bar.add_task("")
            self._bar.start()
        share = f" of {whole / 1e6:,.0f}" if whole >= self._read else ""
        name = "".join(character if character.isprintable() else "?" for character in file[-_NAME_CHARACTERS:])
        self._bar.update(self._task, description=f"{name}: {self._read / 1e6:,.0f}{share} MB")

    def stop(self) -> None:
        """Clear the line."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def shown_progress() -> Iterator[Progress | None]:
    """What to pass to the readers as `progress` while the block runs; None where nothing would be shown."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _ReadingBar()
    try:
        yield bar
    finally:
        bar.stop()
