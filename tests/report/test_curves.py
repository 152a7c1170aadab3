"""Curves for plots: small whatever the run's length, and no extreme is lost on the way."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from doctor.core.events import Step, Where
from doctor.core.run import Run
from doctor.report.curves import METRICS, POINTS, decimated, of_run

HERE = Where("trainer_log.jsonl", 1)
VALUES = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), min_size=1, max_size=400)


@given(VALUES, st.integers(4, 60))
def test_decimation_keeps_the_extremes_the_holes_and_the_order(values: list[float], points: int) -> None:
    """The highest and lowest value and the fact that one was not finite survive; points are the run's own, in order, and few."""
    at, kept = decimated(range(len(values)), values, points)
    finite, left = ([one for one in some if math.isfinite(one)] for some in (values, kept))
    assert (min(finite, default=0), max(finite, default=0)) == (min(left, default=0), max(left, default=0))
    assert (len(finite) < len(values)) == (len(left) < len(kept))
    assert all(a < b for a, b in pairwise(at))
    assert all(values[place] is value for place, value in zip(at, kept, strict=True))
    assert len(at) <= max(points, points // 2 * 3 + 2)


def test_a_spike_in_a_long_run_is_in_the_curve() -> None:
    """Through the run's bounded series and the decimation behind it; the first and the last step stay as well."""
    run = Run()
    for step in range(1, 100_001):
        run.apply(Step(where=HERE, step=step, metrics={"loss": 9.9 if step == 65_432 else 1.0 + (step % 7) / 100}))
    (curve,) = of_run(run)
    assert len(curve.at) <= 1.5 * POINTS + 2
    assert curve.values[curve.at.index(65_432)] == 9.9
    assert curve.at[-1] > 99_900


def test_each_attempt_has_its_curve() -> None:
    """A resumed run overlaps itself: the step goes back, a new curve begins."""
    run = Run()
    for attempt, steps in enumerate((range(1, 60), range(40, 80))):
        for step in steps:
            run.apply(Step(where=HERE, attempt=attempt, step=step, metrics={"loss": 1.0}, seconds=2.0 * step))
    loss = [(one.attempt, one.at[0], one.at[-1]) for one in of_run(run) if one.metric == "loss"]
    assert loss == [(0, 1, 59), (1, 40, 79)]
    pace = [value for one in of_run(run) if one.metric == "step_seconds" for value in one.values]
    assert set(pace) == {2.0}


def test_a_slow_step_stays_visible_in_a_long_run() -> None:
    """The time per step is kept as it was measured, not taken from a thinned clock."""
    run, clock = Run(), 0.0
    for step in range(1, 30_001):
        clock += 60.0 if step == 12_345 else 0.5
        run.apply(Step(where=HERE, step=step, metrics={"loss": 1.0}, seconds=clock))
    pace = next(one for one in of_run(run) if one.metric == "step_seconds")
    assert pace.values[pace.at.index(12_345)] == 60.0


def test_only_the_metrics_people_look_at_first_when_there_are_hundreds() -> None:
    """A report stays small."""
    run = Run()
    run.apply(Step(where=HERE, step=1, metrics={"loss": 1.0, **{f"extra/{number}": 1.0 for number in range(300)}}))
    names = {one.metric for one in of_run(run)}
    assert "loss" in names
    assert len(names) == METRICS
