"""The lines around a piece of evidence, read again from its file once the cause is known; best effort, bounded, masked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from doctor.core.events import Where
from doctor.privacy.personal import private_lines
from doctor.privacy.secrets import clean

BEFORE, AFTER = 12, 6
"""Lines told before and after: a traceback's last frames, and what followed."""
LARGEST_BYTES = 64 << 20
"""In a larger file nothing is looked up again: a second pass would cost as much as the first."""
_CHARS = 400


class Context(msgspec.Struct, frozen=True):
    """Lines before and after a place, as they stand there (shortened and masked)."""

    before: list[str] = []
    after: list[str] = []


def around(places: Iterable[Where]) -> dict[Where, Context]:
    """The context of every place that has a line in a file that can be read as text."""
    by_file: dict[str, list[Where]] = {}
    for place in places:
        if place.line is not None:
            by_file.setdefault(place.file, []).append(place)
    return {place: context for file, wanted in by_file.items() for place, context in _in_file(Path(file), wanted)}


def _in_file(path: Path, wanted: list[Where]) -> Iterator[tuple[Where, Context]]:
    lines = _lines(path, {place.line or 0 for place in wanted})
    for place in wanted:
        number = place.line or 0
        if number not in lines:
            continue
        before = [lines[at] for at in range(number - BEFORE, number) if at in lines]
        after = [lines[at] for at in range(number + 1, number + 1 + AFTER) if at in lines]
        yield place, Context(_shown(before), _shown(after))


def _lines(path: Path, numbers: set[int]) -> dict[int, str]:
    """The numbered lines near `numbers`; nothing of a file that is too large, packed or not there."""
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
    """A line as a terminal would have left it: of a progress bar's states the last."""
    states = [one for one in raw[-(1 << 16) :].decode("utf-8", "replace").rstrip("\r\n").split("\r") if one.strip()]
    text = clean(states[-1]) if states else ""
    return text if len(text) <= _CHARS else f"{text[: _CHARS - 6]} [...]"


def _shown(lines: list[str]) -> list[str]:
    return private_lines(lines)
