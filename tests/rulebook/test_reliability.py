"""The confidence of conclusions that no rule lists follows from what was measured."""

from __future__ import annotations

from doctor.rulebook.exceptions import rows
from doctor.rulebook.reliability import KINDS, Record, Reliability, kind_of, reliability

RECORDS = Reliability(
    failures=300,
    repositories=20,
    kinds={"likely agreed": Record(98, 98), "likely disagreed": Record(14, 20), "possible alone": Record(0, 0)},
    rows={"a/good": Record(40, 40), "a/bad": Record(20, 40)},
)


def test_a_kind_that_was_right_more_often_is_surer() -> None:
    """Agreement with the classifier raises, contradiction lowers; almost certain (0.9) is never reached."""
    agreed, disagreed = RECORDS.confidence("likely agreed"), RECORDS.confidence("likely disagreed")
    assert 0.85 <= agreed < 0.9
    assert 0.6 <= disagreed < 0.75


def test_a_row_that_was_wrong_more_often_is_less_sure() -> None:
    """Half of one row's answers were wrong, none of the other's."""
    good, bad = (RECORDS.confidence("likely disagreed", row) for row in ("a/good", "a/bad"))
    assert bad < 0.5 < good


def test_what_was_never_measured_is_an_even_bet() -> None:
    """A kind without answers, and a kind that the file lacks."""
    assert RECORDS.confidence("possible alone") == RECORDS.confidence("origin agreed") == 0.5


def test_the_shipped_records_are_of_rows_and_kinds_that_exist() -> None:
    """Every row's record is one of the decision table's, no record has more right answers than answers, every kind is there."""
    shipped = reliability()
    assert set(shipped.rows) <= {f"{row.family}/{row.id}" for row in rows()}
    assert tuple(shipped.kinds) == KINDS
    assert all(0 <= one.right <= one.told for one in (*shipped.kinds.values(), *shipped.rows.values()))
    assert kind_of("likely", "agreed") in shipped.kinds
    assert shipped.kinds["likely agreed"].rate > shipped.kinds["likely disagreed"].rate
