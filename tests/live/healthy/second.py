"""The second set: other shapes, written after the first set was mended and committed before it was run."""

from __future__ import annotations

import math
import random

from tests.live.healthy.curves import DPO, FULL, PRETRAINING, SFT, Curve, Shape, curve, decay, noisy, pairs

SECOND: dict[str, Shape] = {}
"""Name -> shape."""


def second(shape: Shape) -> Shape:
    """Register a shape of the second set under its name."""
    SECOND[shape.__name__] = shape
    return shape


def flat(count: int, level: float) -> list[float]:
    """No trend at all."""
    return [level] * count


# ---- data that change


@second
def another_domain_halfway(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, [*decay(100, 2.0, 1.2, 25), *decay(150, 3.0, 1.4, 40)], 0.08), SFT)


@second
def harder_stream_without_a_fall(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, [*decay(100, 1.6, 1.0, 25), *flat(120, 1.6)], 0.07), {**SFT, "streaming": True})


@second
def resumed_on_slightly_harder_data(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, [*decay(80, 2.0, 1.1, 20), *decay(100, 1.5, 1.35, 50)], 0.1), SFT, history=80)


@second
def resumed_on_other_data_logging_ten(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, [*decay(40, 2.2, 1.0, 12), *decay(60, 2.9, 1.1, 12)], 0.05), SFT, every=10, history=40)


@second
def resumed_twice_as_high_in_one_step(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, [*decay(50, 1.5, 0.6, 15), *flat(90, 1.2)], 0.05), FULL, history=50)


@second
def sixteen_files_one_after_the_other(dice: random.Random) -> Curve:
    levels = [dice.uniform(0.5, 3.0) for _ in range(16)]
    return curve(dice, noisy(dice, [level for level in levels for _ in range(15)], 0.1), {**SFT, "disable_shuffling": True})


@second
def megabatches_from_long_to_short(dice: random.Random) -> Curve:
    losses = [level * (1.3 - 0.5 * (log % 50) / 50) for log, level in enumerate(decay(300, 1.6, 1.1, 80))]
    return curve(dice, noisy(dice, losses, 0.12), {**SFT, "train_sampling_strategy": "group_by_length"})


@second
def the_mixture_drifts(dice: random.Random) -> Curve:
    losses = [0.5 if dice.random() < 0.5 + 0.3 * math.sin(log / 60) else 2.0 for log in range(400)]
    return curve(dice, noisy(dice, losses, 0.2), SFT)


@second
def epochs_fall_at_once(dice: random.Random) -> Curve:
    losses = [level * (0.9 + 0.2 * (log % 60) / 60) for log, level in enumerate([v for v in (1.4, 1.0, 0.6, 0.3) for _ in range(60)])]
    return curve(dice, noisy(dice, losses, 0.07), SFT)


# ---- schedules


@second
def restarts_with_large_bumps(dice: random.Random) -> Curve:
    losses = [level * (1 + 0.7 * math.exp(-(log % 100) / 10) * (log >= 100)) for log, level in enumerate(decay(400, 2.4, 1.1, 90))]
    return curve(dice, noisy(dice, losses, 0.06), SFT, cycles=4)


@second
def warmup_bump_of_two_and_a_half(dice: random.Random) -> Curve:
    losses = [level + 1.2 * math.exp(-(((log - 14) / 7) ** 2)) for log, level in enumerate(decay(200, 0.8, 0.55, 60))]
    return curve(dice, noisy(dice, losses, 0.06), FULL)


@second
def warmup_bump_that_gains_little(dice: random.Random) -> Curve:
    losses = [level + 0.5 * math.exp(-(((log - 10) / 6) ** 2)) for log, level in enumerate(decay(120, 1.0, 0.93, 60))]
    return curve(dice, noisy(dice, losses, 0.05), FULL)


@second
def knows_the_data_already(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, flat(300, 0.9), 0.15), FULL)


@second
def full_tuning_with_a_tiny_rate(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(200, 1.5, 1.44, 80), 0.06), {**FULL, "learning_rate": 1e-7})


@second
def late_sudden_fall(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, [*flat(250, 1.9), *decay(100, 1.9, 0.7, 8)], 0.06), SFT)


@second
def two_slow_spikes(dice: random.Random) -> Curve:
    levels = decay(700, 9.5, 2.9, 70)
    for at in (250, 480):
        for since in range(140):
            levels[at + since] *= 1 + 0.6 * math.exp(-since / 30)
    return curve(dice, noisy(dice, levels, 0.03), PRETRAINING)


@second
def slow_drift_and_back(dice: random.Random) -> Curve:
    losses = [1.3 * (1 + 0.14 * math.sin(math.pi * log / 1500) ** 2) for log in range(1500)]
    return curve(dice, noisy(dice, losses, 0.05), SFT)


@second
def swings_grow(dice: random.Random) -> Curve:
    losses = [level * (1 + 0.25 * log / 300 * math.sin(log / 12)) for log, level in enumerate(decay(300, 1.8, 1.2, 80))]
    return curve(dice, noisy(dice, losses, 0.06), SFT)


# ---- preferences and rewards


@second
def dpo_tiny_beta(dice: random.Random) -> Curve:
    return curve(dice, config={**DPO, "pref_beta": 0.01}, losses=(made := pairs(dice, 150, 0.1, 0.15)).pop("loss"), **made)


@second
def dpo_one_log_in_ten(dice: random.Random) -> Curve:
    return curve(dice, config=DPO, every=10, losses=(made := pairs(dice, 25, 0.8, 1.0)).pop("loss"), **made)


@second
def dpo_large_margins(dice: random.Random) -> Curve:
    return curve(dice, config=DPO, grad=20.0, losses=(made := pairs(dice, 180, 4.0, 4.5)).pop("loss"), **made)


@second
def dpo_with_label_smoothing(dice: random.Random) -> Curve:
    losses = noisy(dice, decay(160, 0.693, 0.64, 60), 0.04)
    accuracies = [dice.choice((0.5, 0.75, 0.75, 1.0)) for _ in range(160)]
    return curve(dice, losses, {**DPO, "dpo_label_smoothing": 0.2}, **{"rewards/accuracies": accuracies})


@second
def ipo(dice: random.Random) -> Curve:
    accuracies = [dice.choice((0.5, 0.5, 0.75, 1.0)) for _ in range(150)]
    return curve(dice, noisy(dice, decay(150, 25.0, 18.0, 60), 0.15), {**DPO, "pref_loss": "ipo"}, **{"rewards/accuracies": accuracies})


@second
def hinge(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(150, 1.0, 0.3, 50), 0.4), {**DPO, "pref_loss": "hinge"})


@second
def kto_margins_begin_wrong(dice: random.Random) -> Curve:
    margins = [0.9 * log / 120 - 0.25 + dice.gauss(0, 0.15) for log in range(120)]
    losses = [0.5 - 0.1 * log / 120 + dice.gauss(0, 0.05) for log in range(120)]
    return curve(dice, losses, {**DPO, "stage": "kto"}, **{"rewards/margins": margins})


@second
def kto_single_samples(dice: random.Random) -> Curve:
    return curve(dice, [dice.choice((0.1, 0.45, 0.5, 0.9)) for _ in range(200)], {**DPO, "stage": "kto"})


@second
def reward_model_single_pairs(dice: random.Random) -> Curve:
    losses = [math.log1p(math.exp(-dice.gauss(0.6 * log / 120, 0.1 + log / 120))) for log in range(120)]
    return curve(dice, losses, {**SFT, "stage": "rm"}, grad=20.0)


@second
def reward_model_sure_of_itself(dice: random.Random) -> Curve:
    losses = [math.log1p(math.exp(-dice.gauss(4.0 * log / 300, 0.05 + 2.5 * log / 300))) for log in range(300)]
    return curve(dice, losses, {**FULL, "stage": "rm"}, grad=15.0)


@second
def grpo_begins_at_zero(dice: random.Random) -> Curve:
    losses = [0.0 if log < 12 else dice.gauss(0.01, 0.05) for log in range(200)]
    return curve(dice, losses, SFT, reward=[min(1.0, 0.3 + 0.002 * log + dice.gauss(0, 0.1)) for log in range(200)])


@second
def ppo_reward_wavers(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, flat(120, 0.3), 0.6), {**DPO, "stage": "ppo"}, reward=[dice.gauss(0.6, 0.5) for _ in range(120)])


# ---- small sets, small batches, logs


@second
def memorises_five_samples(dice: random.Random) -> Curve:
    return curve(dice, [round(loss, 4) for loss in noisy(dice, decay(300, 2.5, 0.0001, 14), 0.3)], SFT, grad=0.05)


@second
def very_noisy_single_samples(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(500, 1.6, 1.1, 150), 1.1), SFT, grad=8.0)


@second
def three_kinds(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, [dice.choice((0.02, 0.9, 4.0)) for _ in range(350)], 0.3), SFT, grad=4.0)


@second
def seven_logs(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(7, 1.3, 1.1, 3), 0.12), SFT, every=50)


@second
def twenty_logs_of_a_hundred(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(20, 1.4, 1.15, 8), 0.25), SFT, every=100)


@second
def first_sample_short_no_warmup(dice: random.Random) -> Curve:
    made = curve(dice, [0.4, *noisy(dice, decay(99, 1.9, 1.5, 30), 0.07)], SFT)
    for log in made.logs:
        log["learning_rate"] = 1e-4
    return made


@second
def three_outliers_of_twenty(dice: random.Random) -> Curve:
    losses = noisy(dice, decay(250, 1.7, 1.2, 60), 0.1)
    for at in (60, 140, 222):
        losses[at] *= 20
    return curve(dice, losses, SFT)


@second
def printed_with_one_decimal(dice: random.Random) -> Curve:
    return curve(dice, [round(loss, 1) for loss in noisy(dice, decay(200, 2.1, 1.4, 50), 0.05)], SFT)


@second
def gradients_overflow_at_times(dice: random.Random) -> Curve:
    made = curve(dice, noisy(dice, decay(300, 1.9, 1.3, 80), 0.1), {**SFT, "fp16": True})
    for log in made.logs:
        if dice.random() < 0.02:
            log["grad_norm"] = math.inf
    return made


@second
def the_last_three_logs_are_high(dice: random.Random) -> Curve:
    return curve(dice, [*noisy(dice, decay(147, 1.6, 0.9, 40), 0.08), 1.5, 1.7, 1.6], SFT)
