"""Columns of mixed types, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doctor.dataset.column_types import ColumnTypes
from doctor.dataset.records import Row


def types(*values: dict[str, Any]) -> ColumnTypes:
    made = ColumnTypes()
    for number, value in enumerate(values):
        made.see(Row(Path("a.jsonl"), number + 1, number, value), value)
    return made


def mixed(made: ColumnTypes) -> list[tuple[int, str]]:
    return [(row.line, detail) for row, detail in made.mixed()]


def test_the_rarer_kind_is_named_with_its_first_rows():
    """Numbers of two classes are one kind, truth values another, null is none; columns of all rows count."""
    made = types({"a": "x"}, {"a": None, "b": 1}, {"a": 2, "b": 2.5}, {"a": "y", "b": True}, {"a": [], "c": {}})
    assert mixed(made) == [(3, "a: number, otherwise text"), (5, "a: list, otherwise text"), (4, "b: bool, otherwise number")]
    assert made.columns() == {"a", "b", "c"}
    assert mixed(types({"a": None}, {"a": None})) == []


def test_no_more_than_ten_rows_of_a_kind_are_kept_in_the_order_of_the_data():
    """Rows of several shapes are of one kind: the first ten of all."""
    rows = [{"a": "x"}] * 30 + [{"a": 1, "b": ""} if number % 2 else {"a": 1.5} for number in range(14)]
    assert [line for line, _ in mixed(types(*rows))] == list(range(31, 41))


def test_many_shapes_cost_nothing():
    """A thousand rows with a column each: more shapes than are counted apart; then two rows that differ from the others."""
    rows = [{"a": "x", f"c{number}": "y"} for number in range(1000)]
    made = types({"a": 1}, *rows, {"a": 2})
    assert len(made._shapes) <= 256
    assert mixed(made) == [(1, "a: number, otherwise text"), (1002, "a: number, otherwise text")]
    assert len(made.columns()) == 1001
