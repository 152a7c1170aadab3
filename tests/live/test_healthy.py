"""Healthy curves, however nasty, are neither stopped nor restarted nor called an error."""

from __future__ import annotations

import random

import pytest

from tests.live.healthy.curves import SFT, curve, decay, noisy
from tests.live.healthy.first import FIRST
from tests.live.healthy.harm import harm
from tests.live.healthy.second import SECOND


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
def test_a_healthy_run_is_left_alone(name):
    """Through the judge inside the training, the report, and what healing makes of it."""
    result = harm((FIRST | SECOND)[name](random.Random(name)))
    assert (result.stopped, result.restarted, result.error) == (None, False, False), result.told


def test_a_lost_run_is_harmed():
    """The same way with a run that jumps to nine times its level and stays: stopped, an error, and restarted by healing."""
    dice = random.Random(1)
    result = harm(curve(dice, [*noisy(dice, decay(40, 2.0, 1.0, 20), 0.05), *noisy(dice, [9.0] * 50, 0.05)], SFT))
    assert result.stopped is not None
    assert 41 < result.stopped < 80
    assert (result.restarted, result.error) == (True, True)
