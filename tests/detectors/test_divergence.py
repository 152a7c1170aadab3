"""Divergence: the level of the loss, not a single record, and the learning rate as its cause only with evidence."""

from __future__ import annotations

import pytest

from tests.detectors.samples import diagnose, falling, steps


def rising(number: int = 120, at: int = 80, factor: float = 2.0, ramp: int = 30) -> list[float]:
    """A healthy loss that climbs to `factor` times within `ramp` records from `at` on."""
    return [v * (1 + (factor - 1) * min(1.0, max(0, i - at) / ramp)) for i, v in enumerate(falling(number))]


def test_a_rising_level_is_a_divergence_from_its_beginning_to_the_end():
    """A loss that climbs and stays is one divergence whose steps begin where the climb does; the spike at its foot is not told again."""
    found = diagnose(steps(loss=rising()))
    assert list(found) == ["stability/divergence"]
    first, last = found["stability/divergence"].steps
    assert 81 <= first <= 100
    assert last == 120


@pytest.mark.parametrize(
    ("rate", "config", "cause"),
    [
        (5e-3, {}, "lr_too_high"),
        (5e-4, {"finetuning_type": "full", "stage": "sft"}, "lr_too_high"),
        (2e-4, {"finetuning_type": "lora", "stage": "dpo"}, "lr_too_high"),
        (1e-4, {"finetuning_type": "lora", "stage": "sft"}, "divergence_cause_unknown"),
    ],
)
def test_the_learning_rate_is_blamed_only_above_the_methods_range(rate, config, cause):
    """The same climb is the learning rate's fault where the rate is out of the method's range, else its cause is left open."""
    (found,) = diagnose(steps(loss=rising(), learning_rate=[rate] * 120), config=config).values()
    assert found.rule.cause == cause


def test_a_climb_right_after_the_warmup_points_to_the_learning_rate():
    """A loss that turns when the rate reaches its peak is blamed on the rate even where the rate looks usual."""
    rates = [min(1.0, i / 40) * 1e-4 for i in range(120)]
    (found,) = diagnose(steps(loss=rising(at=45), learning_rate=rates)).values()
    assert found.rule.id == "stability/divergence-after-warmup"


def test_ten_records_are_enough_at_the_end():
    """A run of ten logs that only climbs has diverged."""
    losses = [1.0, 4.2, 8.5, 13.0, 15.2, 15.9, 18.1, 20.9, 25.0, 29.1]
    assert "stability/divergence" in diagnose(steps(loss=losses))


def test_what_comes_back_is_no_divergence():
    """A bump of four records is a spike, and the level is as good as before."""
    losses = falling(120)
    for place, factor in enumerate((3.0, 2.4, 1.8, 1.3)):
        losses[70 + place] *= factor
    assert list(diagnose(steps(loss=losses))) == ["stability/loss-spike"]


def test_both_losses_rising_is_no_overfitting():
    """An eval loss that rises with the training loss is a divergence, and at an absurd rate the rate's fault."""
    losses = [1.7, 1.2, 0.9, 0.8, 1.1, 1.4, 1.5, 1.6, 1.5, 1.6, 1.7, 1.6]
    evals = [None, None, None, 0.8, None, None, 1.3, None, None, 1.5, None, 1.7]
    found = diagnose(steps(loss=losses, eval_loss=evals, learning_rate=[0.03] * 12))
    assert {finding.rule.cause for finding in found.values()} == {"lr_too_high"}
    assert "stability/overfitting" not in found


@pytest.mark.parametrize(
    ("warmup", "at", "rate_then", "expected"),
    [
        pytest.param(30, 50, 1.0, True, id="20 records after 30 of warm-up"),
        pytest.param(30, 80, 1.0, False, id="longer after the warm-up than it took"),
        pytest.param(60, 62, 0.7, False, id="the rate has fallen below four fifths of its peak"),
        pytest.param(0, 30, 1.0, False, id="no warm-up"),
    ],
)
def test_after_the_warmup_means_near_its_peak_and_not_long_after(warmup, at, rate_then, expected):
    """The fact `after_warmup` needs a warm-up, a rate still near the peak, and at most as many steps after it as it took."""
    rates = [1e-4 * min(1.0, (i + 1) / (warmup or 1)) for i in range(140)]
    rates[warmup + 1 if rate_then < 1 else 140 :] = [1e-4 * rate_then] * (140 - (warmup + 1 if rate_then < 1 else 140))
    found = diagnose(steps(loss=rising(140, at=at, factor=3.0, ramp=6), learning_rate=rates), config={"finetuning_type": "lora"})
    (finding,) = [one for one in found.values() if one.rule.symptom == "divergence"]
    assert finding.first.facts["after_warmup"] is expected


def test_a_loss_that_is_on_its_way_back_to_its_first_record_has_not_diverged():
    """A first record that was low by chance, a rise, and a steady fall to below it: nothing stayed high."""
    losses = [0.94, 1.79, 1.70, 1.67, 1.43, 1.41, 1.40, 1.41, 1.27, 1.19, 1.23, 1.23, 1.14, 1.05, 1.07, 1.08, 1.04, 0.92, 0.94, 0.95]
    assert "stability/divergence" not in diagnose(steps(loss=losses))
    stayed = diagnose(steps(loss=[*losses[:3], *(1.65 + 0.01 * (at % 3) for at in range(17))]))
    assert stayed["stability/divergence"].first.facts["from_start"] is True


@pytest.mark.parametrize(("level", "told"), [(0.0, False), (0.05, True)])
def test_the_lowest_of_many_noisy_evaluations_is_no_level_to_rise_from(level, told):
    """One lucky evaluation among eighty is 5 % below the rest; a rise of the level itself is overfitting as before."""
    number = 80
    evals = [0.300 + 0.008 * (at * 7 % 5 - 2) / 2 + (level if at >= 50 else 0.0) for at in range(number)]
    evals[48] = 0.272
    train = [0.32 - 0.0008 * at + 0.03 * (at * 3 % 7 - 3) / 3 for at in range(number)]
    found = diagnose(steps(loss=train, eval_loss=evals))
    assert ("stability/overfitting" in found) is told
