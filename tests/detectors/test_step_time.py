"""Where the time goes: each slow finding with its cause and a share near the truth."""

from __future__ import annotations

import pytest

from doctor.core.events import Sample, Step, Where
from tests.detectors.samples import diagnose, falling, steps


def clock(durations: list[float], whole: bool = False) -> list[float]:
    """Seconds since training began after each step; whole seconds as trainer_log.jsonl has them."""
    total, out = 0.0, []
    for duration in durations:
        total += duration
        out.append(float(int(total)) if whole else total)
    return out


@pytest.mark.parametrize("whole", [False, True])
def test_evaluation_time_is_measured_by_its_pauses(whole):
    """Evaluating for 12 s after every tenth 2 s step is 37 % of the time, also where the clock has whole seconds only."""
    durations = [2.0 + 12.0 * (i % 10 == 9) for i in range(100)]
    evals = [1.5 if i % 10 == 8 else None for i in range(100)]
    found = diagnose(steps(loss=falling(100), seconds=clock(durations, whole), eval_loss=evals))["speed/eval-too-often"]
    assert found.first.facts["share"] == pytest.approx(37.5, abs=5)


def test_checkpoints_are_blamed_where_pauses_fall_on_save_steps():
    """Pauses after multiples of save_steps are saving, and nothing else is said."""
    durations = [2.0 + 9.0 * (i > 0 and i % 20 == 0) for i in range(120)]
    found = diagnose(steps(loss=falling(120), seconds=clock(durations)), config={"save_steps": 20, "stage": "sft"})
    assert list(found) == ["speed/saving-too-often"]
    assert found["speed/saving-too-often"].first.facts["share"] == pytest.approx(100 * 45 / 283, abs=5)


def test_one_long_pause_is_a_stall():
    """Twenty minutes between two steps of 2 s are a stall at that step."""
    durations = [2.0 + 1200 * (i == 60) for i in range(100)]
    found = diagnose(steps(loss=falling(100), seconds=clock(durations)))
    assert list(found) == ["speed/training-stalled"]
    assert found["speed/training-stalled"].first.facts["step"] == 61


def test_drift_is_judged_per_token_where_tokens_are_counted():
    """Steps that take twice as long are drift, unless they hold twice as many tokens."""
    durations = [2.0 if i < 60 else 4.0 for i in range(100)]
    alone = diagnose(steps(loss=falling(100), seconds=clock(durations)))
    counted = diagnose(steps(loss=falling(100), seconds=clock(durations), total_tokens=[1000 * s for s in clock(durations)]))
    assert list(alone) == ["speed/steps-get-slower"]
    assert counted == {}


def test_a_starved_gpu_is_seen_in_the_callbacks_clock():
    """Waiting 0.6 of 1 s for data is a share of 60 %, the first batches left out."""
    wait = [5.0, 2.0] + [0.6] * 20
    found = diagnose(steps(loss=falling(22), step_seconds=[w + 0.4 for w in wait], data_wait_seconds=wait))
    assert found["speed/waiting-for-data"].first.facts["share"] == pytest.approx(60)


def test_the_slow_rank_is_named():
    """Of four ranks the one that needs half as long again is the slow one."""
    readings = [
        Sample(where=Where(f"rank{rank}.jsonl", line), rank=rank, metrics={"own_seconds": 1.5 if rank == 2 else 1.0, "step_seconds": 2.0})
        for line in range(1, 11)
        for rank in range(4)
    ]
    found = diagnose(readings)["speed/slow-rank"]
    assert (found.ranks, found.first.facts["slow_rank"]) == ((2,), 2)
    assert found.first.facts["share"] == pytest.approx(25)


def test_steady_steps_and_short_runs_are_silent():
    """A steady run says nothing; nor does one too short for a clock of whole seconds."""
    assert diagnose(steps(loss=falling(100), seconds=clock([2.0] * 100))) == {}
    assert diagnose(steps(loss=falling(20), seconds=clock([0.4 + 0.5 * (i % 5 == 0) for i in range(20)], whole=True))) == {}


def test_evaluations_are_weighed_by_the_runs_totals_where_no_log_has_a_time():
    """trainer_state.json has no times but eval_runtime and train_runtime: 200 of 500 s are 40 %."""
    evals = steps(loss=falling(40), eval_loss=[1.3 if i % 20 == 19 else None for i in range(40)])
    evals = [step if "eval_loss" not in step.metrics else replaced(step) for step in evals]
    found = diagnose(evals, facts={"train.runtime_seconds": 500.0})
    assert found["speed/eval-too-often"].first.facts["share"] == pytest.approx(40)


def replaced(step: Step) -> Step:
    """The step with an evaluation of 100 s."""
    return Step(where=step.where, step=step.step, metrics={**step.metrics, "eval_runtime": 100.0})
