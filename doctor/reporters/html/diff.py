"""A unified diff as the two columns of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec


class Row(msgspec.Struct, frozen=True):
    """A row of a side-by-side diff: line numbers and texts, and whether it is the same, changed, removed, added, or left out."""

    kind: str
    old_line: int | None = None
    old: str | None = None
    new_line: int | None = None
    new: str | None = None


def side_by_side(diff: str) -> list[Row]:
    """A unified diff as rows of two columns: removed lines next to the lines that replace them."""
    rows: list[Row] = []
    old = new = 0
    gone: list[str] = []
    came: list[str] = []
    for line in diff.splitlines():
        found = re.match(r"@@ -(\d+)(?:,\d+)? \+(\d+)", line)
        if line.startswith(("--- ", "+++ ", "\\")):
            continue
        if line.startswith("-"):
            gone.append(line[1:])
        elif line.startswith("+"):
            came.append(line[1:])
        else:
            rows += _changed(gone, came, old, new)
            old, new = old + len(gone), new + len(came)
            gone, came = [], []
            if found:
                old, new = int(found[1]), int(found[2])
                rows += [Row("gap")] if rows else []
            else:
                rows.append(Row("same", old, line[1:], new, line[1:]))
                old, new = old + 1, new + 1
    return [*rows, *_changed(gone, came, old, new)]


def _changed(gone: Sequence[str], came: Sequence[str], old: int, new: int) -> Iterator[Row]:
    for place in range(max(len(gone), len(came))):
        left = gone[place] if place < len(gone) else None
        right = came[place] if place < len(came) else None
        kind = "changed" if left is not None and right is not None else "removed" if right is None else "added"
        yield Row(kind, old + place if left is not None else None, left, new + place if right is not None else None, right)
