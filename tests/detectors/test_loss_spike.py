"""Spikes of the loss: seen over the run's own noise, and only there."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detectors.samples import diagnose, falling, steps

SPIKE = "stability/loss-spike"


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_a_tripled_loss_is_one_finding_at_its_step(noise):
    """One record of three times the loss is a spike at exactly its step, at any usual noise."""
    losses = falling(120, noise)
    losses[80] *= 3
    found = diagnose(steps(loss=losses))
    assert list(found) == [SPIKE]
    assert found[SPIKE].steps == (81, 81)
    assert found[SPIKE].first.facts["ratio"] == pytest.approx(3, rel=0.35)


def test_a_second_spike_is_seen_after_a_first():
    """A spike does not raise the baseline: an equal one five records later is found too."""
    losses = falling(100)
    losses[50] *= 3
    losses[55] *= 3.2
    assert diagnose(steps(loss=losses))[SPIKE].count == 2


def test_a_jump_in_the_first_records_is_judged_once_twelve_are_known():
    """A spike of the warm-up is found although no baseline stands before it, live at the twelfth record and in a short run at its end."""
    losses = [12.1, 25.0, 13.9, 10.1, 9.2, 8.8, 8.6, 8.5]
    assert diagnose(steps(loss=losses))[SPIKE].steps == (2, 2)
    assert diagnose(steps(loss=losses + [8.4] * 8))[SPIKE].steps == (2, 2)


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param([v * (0.75 if i >= 60 else 1.0) * (0.6 if i >= 120 else 1.0) for i, v in enumerate(falling(180))], id="staircase"),
        pytest.param([v * (1.9 if i % 6 == 0 else 1.0) for i, v in enumerate(falling(200))], id="sawtooth of an ordered sampler"),
        pytest.param([max(0.0, round(v - 1.1, 4)) for v in falling(120, 0.001)], id="memorised near zero"),
        pytest.param([random.Random(3).gauss(0, 0.02) * (1 + i % 7) for i in range(80)], id="around zero"),
        pytest.param([0.6931 + 0.01 * math.sin(i) for i in range(60)], id="flat"),
    ],
)
def test_benign_shapes_are_silent(losses):
    """Staircases, sawtooths, memorised and GRPO-like losses give no finding above a note."""
    assert diagnose(steps(loss=losses)) == {}


def test_another_attempt_starts_its_own_baseline():
    """A run that starts again from scratch at its first loss has not spiked."""
    first, again = falling(60), falling(60, seed=1, start=2.6)
    assert diagnose(steps(loss=first), steps(loss=again, attempt=1)) == {}


def test_a_jumping_gradient_makes_the_finding_surer():
    """grad_norm is a second witness: with it a spike is surer than without."""
    losses, grads = falling(80), [0.5 + 0.01 * (i % 5) for i in range(80)]
    losses[60] *= 2.5
    alone = diagnose(steps(loss=losses))[SPIKE].confidence
    grads[60] = 9.0
    assert diagnose(steps(loss=losses, grad_norm=grads))[SPIKE].confidence > alone


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 1e-300, 1e300]), max_size=60))
def test_no_numbers_break_a_detector(losses):
    """Whatever is logged as loss and grad_norm, no detector fails."""
    diagnose(steps(loss=losses, grad_norm=losses[::-1], learning_rate=losses, eval_loss=losses))


@pytest.mark.parametrize(("usual", "factor", "is_spike"), [(1.35, 1.5, False), (1.35, 1.8, True), (1.0, 1.5, True)])
def test_a_record_must_exceed_the_largest_usual_rise_by_half(usual, factor, is_spike):
    """Where records of 1.35 times the level come again and again, one of 1.5 times is usual: 1.5 x log(1.35) is more than log(1.5)."""
    losses = [2.0 * (usual if i > 20 and i % 20 == 0 else 1.0) * (1 + 0.01 * math.sin(7 * i)) for i in range(150)]
    losses[130] = 2.0 * factor
    assert (SPIKE in diagnose(steps(loss=losses))) is is_spike


def test_a_spike_that_came_back_says_whether_a_later_one_did() -> None:
    """Two spikes: "nothing to do" is true only once the second has come back too."""
    losses = falling(60)
    losses[40], losses[58] = 4.9, 9.8
    assert diagnose(steps(loss=losses[:59]))[SPIKE].first.facts["later_open"] is True
    over = diagnose(steps(loss=[*losses, *[1.1] * 6]))[SPIKE].first.facts
    assert (over["recovered"], over["later_open"]) == (True, False)
