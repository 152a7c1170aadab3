"""Run: what is known so far, in constant memory."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.core.events import ConfigSeen, Fact, Step, Where
from doctor.core.run import Run
from doctor.core.series import Series

HERE = Where("trainer_log.jsonl", 1)


STEPS = st.builds(
    lambda step, names, value, seconds, attempt, rank: Step(
        where=HERE, step=step, metrics=dict.fromkeys(names, value), seconds=seconds, attempt=attempt, rank=rank
    ),
    st.integers(0, 50), st.sampled_from([("loss",), ("loss", "lr"), ("lr", "loss"), ("eval_loss",)]), st.floats(),
    st.sampled_from([None, 1.0, 2.0, 3.5]), st.sampled_from([0, 0, 0, 1]), st.sampled_from([None, None, 2]),
)  # fmt: skip


@given(st.lists(STEPS, min_size=1, max_size=40), st.lists(STEPS, max_size=3))
def test_many_steps_at_once_are_what_they_are_one_by_one(steps, before):
    """Series, thinned or not, times, attempts and ranks; whatever came before."""
    one, many = Run(), Run()
    for run in (one, many):
        run.seconds.capacity = 8
        for step in before:
            run.apply(step)
        for series in run.series.values():
            series.capacity = 8
    for step in steps:
        one.apply(step)
    many.apply_all(steps)
    assert told(many) == told(one)


def told(run: Run) -> str:
    """Everything that it knows, as text (nan equals nan)."""
    known = {name: list(value) if isinstance(value, Series) else value for name, value in vars(run).items()}
    return repr(known | {"series": {name: list(series) for name, series in run.series.items()}})


def test_the_users_own_yaml_wins_over_what_was_recovered():
    """A value from training_args never replaces the YAML's, whichever is read first."""
    for order in ((0, 1), (1, 0)):
        run = Run()
        events = [
            ConfigSeen(where=HERE, values={"learning_rate": 1e-4}, origin="yaml"),
            ConfigSeen(where=HERE, values={"learning_rate": 5e-5, "seed": 7}, origin="training_args"),
        ]
        for place in order:
            run.apply(events[place])
        assert run.config == {"learning_rate": 1e-4, "seed": 7}


def test_frame_has_one_row_a_step():
    """The table is indexed by step, has a column a metric, and NaN where a step lacks it."""
    run = Run()
    run.apply(Step(where=HERE, step=10, metrics={"loss": 2.0, "grad_norm": 1.0}, seconds=5.0))
    run.apply(Step(where=HERE, step=20, metrics={"loss": 1.5}))
    run.apply(Fact(where=HERE, name="run.completed", value=True))
    table = run.frame()
    assert list(table.index) == [10, 20]
    assert table.loc[20, "loss"] == 1.5
    assert math.isnan(table.loc[20, "grad_norm"])
    assert table.loc[10, "seconds"] == 5.0
    assert run.completed


@pytest.mark.parametrize(
    ("seconds", "pace"),
    [
        ([(1, 10.0), (2, 12.0), (3, 15.0)], [(2, 2.0), (3, 3.0)]),
        ([(10, 10.0), (20, 30.0)], [(20, 2.0)]),  # logged every ten steps
        ([(1, 10.0), (2, 10.0), (3, 10.0), (4, 11.0)], [(4, 1 / 3)]),  # a clock of whole seconds: three steps in one second
        ([(1, 10.0), (2, 9.0), (3, 12.0)], [(3, 1.0)]),  # a clock that went back measures nothing
        ([(5, 10.0), (3, 12.0), (4, 13.0)], [(4, 1.0)]),  # the step went back: the time between is no step's
    ],
)
def test_the_time_of_a_step_is_the_clock_since_the_last_one(seconds: list[tuple[int, float]], pace: list[tuple[int, float]]):
    """Also while the clock stands still or goes back."""
    run = Run()
    for step, moment in seconds:
        run.apply(Step(where=HERE, step=step, metrics={"loss": 1.0}, seconds=moment))
    assert run.step_seconds.steps == [step for step, _ in pace]
    assert run.step_seconds.values == pytest.approx([value for _, value in pace])


def test_no_step_time_spans_two_attempts():
    """Between the last step of one process and the first of the next there is a start, not a step."""
    run = Run()
    for attempt, step, moment in ((0, 1, 10.0), (0, 2, 12.0), (1, 3, 100.0), (1, 4, 103.0)):
        run.apply(Step(where=HERE, step=step, metrics={"loss": 1.0}, seconds=moment, attempt=attempt))
    assert list(run.step_seconds) == [(2, 2.0), (4, 3.0)]
