"""Curves for plots: small whatever the run's length, and no extreme is lost on the way."""

from __future__ import annotations

from doctor.core.events import Step, Where
from doctor.core.run import Run
from doctor.report.curves import METRICS, POINTS, of_run

HERE = Where("trainer_log.jsonl", 1)


def test_a_spike_in_a_long_run_is_in_the_curve() -> None:
    """Through the run's bounded series and its downsampling; the first and the last step stay as well."""
    run = Run()
    for step in range(1, 100_001):
        run.apply(Step(where=HERE, step=step, metrics={"loss": 9.9 if step == 65_432 else 1.0 + (step % 7) / 100}))
    (curve,) = of_run(run)
    assert len(curve.at) <= POINTS
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


def test_a_metric_name_is_cleaned_like_every_text_of_a_run() -> None:
    """It is data of the run: no lone surrogate that JSON cannot hold, no control character, no secret."""
    run = Run()
    run.apply(Step(where=HERE, step=1, metrics={"loss": 1.0, "a\ud800\x1b[31m": 1.0, "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH": 1.0}))
    names = {one.metric for one in of_run(run)} - {"loss"}
    assert all(name.encode("utf-8") and "\x1b" not in name and "abcdefgh" not in name for name in names)
    assert len(names) == 2
