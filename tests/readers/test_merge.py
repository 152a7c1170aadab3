"""Joining: one step an event, whatever the number and order of the sources."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.core.events import Step, Where
from doctor.readers import merge


def record(step: int, file: str = "a", seconds: float | None = None, exact: bool = True, **metrics: float) -> Step:
    return Step(where=Where(file), step=step, metrics=metrics, seconds=seconds, exact=exact)


def shape(steps: list[Step]) -> list[tuple[int, int]]:
    return [(step.attempt, step.step) for step in steps]


def test_one_source_streams_as_it_joins():
    """A lone log told step by step equals the same log joined as a source."""
    records = [record(step, loss=place + 1.0) for place, step in enumerate((1, 2, 3, 2, 3, 4))]
    assert list(merge.sequence(records)) == list(merge.join([("trainer_log", records)]))
    assert shape(list(merge.sequence(records))) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4)]


def test_trust_decides_the_digits():
    """Of four sources of one field the state's value stands, then the event file's, the log's, the console's."""
    kinds = {"console": 1.1001, "trainer_log": 1.1, "tensorboard": 1.10002, "trainer_state": 1.100001}
    for left_out in ([], ["trainer_state"], ["trainer_state", "tensorboard"]):
        given_ = {kind: value for kind, value in kinds.items() if kind not in left_out}
        (step,) = merge.join([(kind, [record(5, kind, loss=value)]) for kind, value in given_.items()])
        assert step.metrics["loss"] == list(given_.values())[-1]


def test_a_nan_is_the_same_as_a_nan():
    """Non-finite figures join like others: two sources of a broken step are one step."""
    steps = list(merge.join([("trainer_log", [record(1, loss=math.nan)]), ("console", [record(1, loss=math.nan, grad_norm=math.inf)])]))
    assert len(steps) == 1
    assert steps[0].metrics["grad_norm"] == math.inf


def test_steps_only_another_source_saw_are_kept():
    """A log with a hole is filled from the event file, in order, in the right attempt."""
    log = [record(step, loss=float(step)) for step in (1, 2, 6)] + [record(step, loss=step + 0.5) for step in (5, 6)]
    board = [record(step, "b", loss=float(step)) for step in (1, 2, 3, 6)]
    assert shape(list(merge.join([("trainer_log", log), ("tensorboard", board)]))) == [(0, 1), (0, 2), (0, 3), (0, 6), (1, 5), (1, 6)]


def test_a_second_run_in_its_own_console_comes_after():
    """Two console files with contradicting figures are two attempts, none mixed with the other."""
    one = [record(step, "1.log", loss=float(step)) for step in (1, 2, 3)]
    two = [record(step, "2.log", loss=step + 0.5) for step in (1, 2)]
    steps = list(merge.join([("console", one), ("console", two)]))
    assert shape(steps) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def test_the_same_console_kept_twice_is_one_run():
    """`tee` and the web UI may keep the same text: nothing is told twice."""
    one = [record(step, "1.log", loss=float(step)) for step in (1, 2, 3)]
    two = [record(step, "2.log", loss=float(step)) for step in (1, 2, 3)]
    assert shape(list(merge.join([("console", one), ("console", two)]))) == [(0, 1), (0, 2), (0, 3)]


losses = st.floats(0.1, 9.0).map(lambda value: round(value, 3))
histories = st.lists(st.tuples(st.integers(1, 40), losses), max_size=60)


@given(st.lists(st.tuples(st.sampled_from([*merge.TRUST, "other"]), histories), max_size=5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_sources_give_ordered_steps_and_lose_no_value(sources: list[tuple[str, list[tuple[int, float]]]], exact: bool):
    """Whatever the sources say: attempts from 0 without gaps, ascending steps, each once, and every step of every source is told."""
    made = [
        (kind, [record(step, str(place), exact=exact, loss=loss) for step, loss in history])
        for place, (kind, history) in enumerate(sources)
    ]
    steps = list(merge.join(made))
    told = shape(steps)
    assert told == sorted(set(told))
    assert sorted({attempt for attempt, _ in told}) == list(range(len({attempt for attempt, _ in told})))
    if exact:
        assert {step for _, history in sources for step, _ in history} <= {step for _, step in told}


@given(histories)
def test_a_clean_log_is_told_as_it_is(history: list[tuple[int, float]]):
    """Ascending steps come out one by one, unchanged."""
    clean = sorted(dict(history).items())
    assert [(step.step, step.metrics["loss"]) for step in merge.sequence(record(step, loss=loss) for step, loss in clean)] == clean


@pytest.mark.parametrize(("back", "attempts"), [(0.0, 1), (0.9, 1), (1.0, 1), (1.1, 2), (60.0, 2)])
def test_a_clock_that_goes_back_by_more_than_a_second_is_a_restart(back: float, attempts: int):
    """Elapsed time is logged in whole seconds: up to one second is rounding, more is another process, although the step goes on."""
    steps = list(merge.sequence([record(1, seconds=100.0, loss=3.0), record(2, seconds=100.0 - back, loss=2.9)]))
    assert len({step.attempt for step in steps}) == attempts
    assert [step.step for step in steps] == [1, 2]


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1.2345, 1.23454, True),  # four decimals
        (0.0001, 0.00015, True),
        (0.0001, 0.0003, False),
        (123.4, 123.44, True),  # four digits
        (123.4, 123.6, False),
        (-2.5, -2.501, True),
        (-2.5, 2.5, False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
    ],
)
def test_values_are_equal_up_to_what_consoles_round_away(a: float, b: float, equal: bool):
    """Four decimals of transformers 4, four digits of transformers 5, in either order; NaN is NaN, infinities keep their sign."""
    assert merge.close(a, b) is equal
    assert merge.close(b, a) is equal
