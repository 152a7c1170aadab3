"""Which kinds of value the columns of a data set hold: Arrow wants one type in a column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from doctor.dataset.records import Row

_FIRST = 10
"""Rows that are kept of each kind."""
_SHAPES = 256
"""Shapes that are counted apart; most data sets have fewer than five."""


class ColumnTypes:
    """Counts the rows of each shape (its columns and the classes of their values), and works the kinds out at the end."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[Any, ...], list[tuple[int, Row]]] = {}
        self._seen: dict[tuple[Any, ...], int] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._rows: dict[tuple[str, str], list[Row]] = {}
        self._columns: dict[str, None] = {}
        self._kept = 0

    def see(self, row: Row, value: dict[str, Any]) -> None:
        """Take one row."""
        shape = (*value, *map(type, value.values()))
        first = self._shapes.get(shape)
        if first is None:
            if len(self._shapes) >= _SHAPES:
                self._fold()
            first = self._shapes[shape] = []
            self._seen[shape] = 0
        self._seen[shape] += 1
        if len(first) < _FIRST:
            self._kept += 1
            first.append((self._kept, row))

    def columns(self) -> set[str]:
        """Every column that is in any row."""
        self._fold()
        return set(self._columns)

    def mixed(self) -> Iterator[tuple[Row, str]]:
        """The first rows of the rarer kinds of each column, and which kind they have."""
        self._fold()
        for column in self._columns:
            kinds = [kind for name, kind in self._counts if name == column]
            usual = max(kinds, key=lambda kind: self._counts[(column, kind)], default="")
            for kind in kinds:
                for row in self._rows[(column, kind)] if kind != usual else ():
                    yield row, f"{column}: {kind}, otherwise {usual}"

    def _fold(self) -> None:
        """The counts of shapes as counts of kinds. The first rows of the kinds so far stand before those of the shapes."""
        found: dict[tuple[str, str], list[tuple[int, Row]]] = {}
        for shape, rows in self._shapes.items():
            half = len(shape) // 2
            for column, kind in zip(shape[:half], map(kind_of, shape[half:]), strict=True):
                self._columns.setdefault(column)
                if kind:
                    key = (column, kind)
                    self._counts[key] = self._counts.get(key, 0) + self._seen[shape]
                    found.setdefault(key, []).extend(rows)
        for key, rows in found.items():
            known = self._rows.setdefault(key, [])
            known += [row for _, row in sorted(rows)[: _FIRST - len(known)]]
        self._shapes, self._seen = {}, {}


def kind_of(kind: type) -> str:
    """The kind of a value's class as Arrow sees it; "" for null."""
    names: dict[type, str] = {type(None): "", bool: "bool", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(kind, kind.__name__)
