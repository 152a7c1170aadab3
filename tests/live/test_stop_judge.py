"""When a training is stopped for good, and when a rising loss is left alone: data may change."""

from __future__ import annotations

import math
import random

import pytest

from doctor.live.trainer.stop_judge import JUMPS_VARIABLE, StopJudge, is_falling


def stops_at(losses: list[float], **config: object) -> int | None:
    """The step at which a run with these losses, one log a step, is stopped."""
    judge = StopJudge(config=config)
    for step, loss in enumerate(losses, 1):
        if judge.step(step, {"loss": loss, "learning_rate": 1e-4}):
            return step
    return None


def good(count: int = 40, start: float = 2.5, end: float = 1.2) -> list[float]:
    dice = random.Random(1)
    return [end + (start - end) * math.exp(-step / 12) + dice.uniform(-0.03, 0.03) for step in range(count)]


def flat(level: float, count: int = 60, noise: float = 0.3) -> list[float]:
    dice = random.Random(2)
    return [level + dice.uniform(-noise, noise) for _ in range(count)]


def decay(start: float, end: float, count: int = 80, steps: float = 10.0) -> list[float]:
    """New data: the loss starts high and falls."""
    dice = random.Random(3)
    return [end + (start - end) * math.exp(-step / steps) * (1 + dice.uniform(-0.03, 0.03)) for step in range(count)]


def test_a_lost_run_is_stopped():
    """The loss jumps and stays: stopped within 30 logs; so is one that rises further and further."""
    assert 41 <= (stops_at([*good(), *flat(9.0)]) or 0) <= 70
    assert 41 <= (stops_at([*good(), *(1.5 * 1.06**step for step in range(60))]) or 0) <= 90


def test_a_loss_that_is_not_a_number_stops_at_once():
    """Whatever the config says of the data."""
    losses = [*good(20), *[math.nan] * 30]
    assert stops_at(losses) is not None
    assert stops_at(losses, disable_shuffling=True) == stops_at(losses)


@pytest.mark.parametrize(
    "second",
    [
        decay(10.1, 0.8),
        decay(10.6, 0.97, steps=25.0),
        [10.57, 9.2, 7.2, 6.0, 5.8, 5.6, 5.1, 4.6, 4.1, 3.7, 3.4, 3.0, 2.7, 2.4, 2.2, 2.0, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2],
        decay(3.0, 1.5, count=120, steps=30.0),
    ],
    ids=["unshuffled", "slow", "few logs", "curriculum"],
)
def test_a_loss_that_falls_again_is_left_alone(second):
    """Other data from a step on: the loss is high and falling, and no log stops the run."""
    assert stops_at([*good(), *second]) is None


def test_a_fall_that_ends_high_is_lost():
    """After a jump to 11 the loss falls to 7 and stays there: the run is stopped once it no longer falls."""
    stopped = stops_at([*good(), *decay(11.0, 7.0, count=30, steps=6.0), *flat(7.0, 80, 0.4)])
    assert stopped is not None
    assert stopped > 50


@pytest.mark.parametrize("config", [{"disable_shuffling": True}, {"streaming": True}, {"train_sampling_strategy": "sequential"}])
def test_data_in_file_order_may_jump(config):
    """Unshuffled and streamed data: a jump that stays says something of the data, not of the training."""
    assert stops_at([*good(), *flat(9.0)], **config) is None
    assert stops_at([*good(), *flat(9.0)], **dict.fromkeys(config, False)) is not None


@pytest.mark.parametrize(("jumps", "stopped"), [("41", False), ("39,120", False), ("44", True), ("20", True), ("", True)])
def test_the_same_jump_with_another_rate_is_the_data(monkeypatch, jumps, stopped):
    """An earlier attempt with another learning rate jumped at the same step (41, two logs more or less): this one is not stopped."""
    monkeypatch.setenv(JUMPS_VARIABLE, jumps)
    assert (stops_at([*good(), *flat(9.0)]) is not None) is stopped


@pytest.mark.parametrize(("own", "stopped"), [([9.0], False), ([1.2, 1.2, 9.0], True)])
def test_a_jump_right_behind_the_checkpoint_is_the_data(own, stopped):
    """No step was trained between the last log before a checkpoint and the first one behind it; a jump two logs later is another matter."""
    judge, past = StopJudge(), good()
    for step, loss in enumerate(past, 1):
        judge.remember(step, {"loss": loss, "learning_rate": 1e-4})
    losses = enumerate([*own, *flat(9.0)], len(past) + 1)
    assert any(judge.step(step, {"loss": loss, "learning_rate": 1e-4}) for step, loss in losses) is stopped


def test_history_stops_nothing():
    """Logs from before a resumed checkpoint set the level; that the loss was high there already does not stop the run."""
    judge = StopJudge()
    for step, loss in enumerate([*good(), *flat(9.0, 30)], 1):
        judge.remember(step, {"loss": loss})
    assert all(judge.step(step, {"loss": 9.0}) is None for step in range(71, 75))


@pytest.mark.parametrize(
    ("values", "falling"),
    [
        ([5.0, 4.0, 3.0, 2.0], True),
        ([3.0, 2.0, 1.0], False),
        ([1.0, 2.0, 3.0, 4.0], False),
        ([5.0, 4.99, 4.98, 4.97, 4.96], False),
        ([2.0, 2.5, 1.9, 2.4, 2.0, 2.6, 1.8], False),
        ([9.0, 7.0, 7.5, 6.0, 5.0, 5.5, 4.0], True),
    ],
)
def test_is_falling(values, falling):
    """A significant trend, and a fall of at least 0.5."""
    assert is_falling(values, 0.5) is falling
