"""How far reading is, on standard error: only where that is a terminal, and only for what takes over a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_AFTER, _EVERY = 1.0, 0.1
"""Seconds before anything is shown, and between two redraws."""


class _Line:
    """One line that is drawn over and over."""

    def __init__(self) -> None:
        self._began = self._drawn = time.monotonic()
        self._file = ""
        self._read = 0
        self.shown = False

    def __call__(self, file: str, size: int, whole: int) -> None:
        if file != self._file:
            self._file, self._read = file, 0
        self._read += size
        now = time.monotonic()
        if now - self._began < _AFTER or now - self._drawn < _EVERY:
            return
        self._drawn, self.shown = now, True
        share = f" of {whole / 1e6:,.0f}" if whole >= self._read else ""
        name = "".join(one if one.isprintable() else "?" for one in file[-50:])
        print(f"\r{name}: {self._read / 1e6:,.0f}{share} MB\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def shown_progress() -> Iterator[None]:
    """Shows it while the block runs, and clears the line after."""
    if not sys.stderr.isatty():
        yield
        return
    from doctor.readers import base

    line = _Line()
    base.progress = line
    try:
        yield
    finally:
        base.progress = None
        if line.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
