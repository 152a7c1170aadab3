"""Lines around a piece of evidence and at the end of a log, read again from the file: best effort, bounded, masked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from doctor.core.events import Where
from doctor.privacy.personal import private_lines
from doctor.privacy.secrets import clean

BEFORE, AFTER = 12, 6
"""Lines before (a traceback's last frames) and after a place."""
LAST = 12
"""Lines from the end of a log: a traceback's last frames and its exception."""
LARGEST_BYTES = 64 << 20
"""A larger file is not read again for lines in its middle: a second pass would cost as much as the first."""
_TAIL_BYTES = 64 << 10
"""Bytes read from the end of a log."""
_LINE_BYTES, _CHARS = 1 << 16, 400
"""Bytes of a line that are decoded, and characters of it that are shown."""


class Context(msgspec.Struct, frozen=True):
    """The lines before and after a place, shortened and masked."""

    before: list[str] = []
    after: list[str] = []


def around(places: Iterable[Where]) -> dict[Where, Context]:
    """The context of each place that names a line of a readable text file."""
    by_file: dict[str, list[Where]] = {}
    for place in places:
        if place.line is not None:
            by_file.setdefault(place.file, []).append(place)
    return {place: context for file, wanted in by_file.items() for place, context in _in_file(Path(file), wanted)}


def last_lines(path: Path) -> tuple[int | None, str]:
    """The number of the first of a file's last lines (None for a large file) and their text; empty if it cannot be read as text."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = max(0, size - _TAIL_BYTES)
            before = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) if size <= LARGEST_BYTES else None
            file.seek(start)
            tail = file.read()
    except OSError:
        return None, ""
    if b"\0" in tail:
        return None, ""
    lines = tail.rstrip().split(b"\n")[-LAST:]
    total = before + (not tail.endswith(b"\n")) if before is not None else None
    blank = tail.count(b"\n") - tail.rstrip().count(b"\n") - tail.endswith(b"\n")
    number = max(1, total - max(0, blank) - len(lines) + 1) if total is not None else None
    return number, "\n".join(private_lines([_decoded(line) for line in lines]))


def _in_file(path: Path, wanted: list[Where]) -> Iterator[tuple[Where, Context]]:
    lines = _lines(path, {place.line or 0 for place in wanted})
    for place in wanted:
        number = place.line or 0
        if number not in lines:
            continue
        before = [lines[at] for at in range(number - BEFORE, number) if at in lines]
        after = [lines[at] for at in range(number + 1, number + 1 + AFTER) if at in lines]
        yield place, Context(private_lines(before), private_lines(after))


def _lines(path: Path, numbers: set[int]) -> dict[int, str]:
    """The lines near `numbers` by number; nothing if the file is too large, binary or missing."""
    near = {at for number in numbers for at in range(number - BEFORE, number + AFTER + 1)}
    last, out = max(near, default=0), {}
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return {}
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if number > last:
                    break
                if b"\0" in raw[:4096]:
                    return {}
                if number in near:
                    out[number] = _decoded(raw)
    except OSError:
        return {}
    return out


def _decoded(raw: bytes) -> str:
    """A line as a terminal shows it: a progress bar's last state."""
    states = [state for state in raw[-_LINE_BYTES:].decode("utf-8", "replace").rstrip("\r\n").split("\r") if state.strip()]
    text = clean(states[-1]) if states else ""
    return text if len(text) <= _CHARS else f"{text[: _CHARS - 6]} [...]"
