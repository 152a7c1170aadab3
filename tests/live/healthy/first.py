"""The first set. Written and committed before the code under test saw any of it; a shape's name says what it is."""

from __future__ import annotations

import math
import random

from tests.live.healthy.curves import DPO, FULL, PRETRAINING, SFT, Curve, Shape, curve, decay, noisy, pairs

FIRST: dict[str, Shape] = {}
"""Name -> shape."""


def first(shape: Shape) -> Shape:
    """Register a shape of the first set under its name."""
    FIRST[shape.__name__] = shape
    return shape


# ---- data that change


@first
def unshuffled_two_kinds(dice: random.Random) -> Curve:
    losses = [*decay(60, 2.5, 1.2, 15), *decay(80, 10.1, 0.8, 12)]
    return curve(dice, noisy(dice, losses, 0.05), {**SFT, "disable_shuffling": True})


@first
def unshuffled_ten_blocks(dice: random.Random) -> Curve:
    losses = [level * (1 - 0.002 * log) for log, level in enumerate(dice.choice((0.6, 1.1, 1.9, 2.8)) for _ in range(10))]
    return curve(dice, noisy(dice, [level for level in losses for _ in range(25)], 0.08), {**SFT, "disable_shuffling": True})


@first
def streaming_blocks(dice: random.Random) -> Curve:
    losses = [*decay(120, 2.2, 1.4, 30), *decay(90, 3.3, 2.6, 40), *decay(90, 1.9, 1.5, 40)]
    return curve(dice, noisy(dice, losses, 0.1), {**SFT, "streaming": True})


@first
def curriculum_by_length(dice: random.Random) -> Curve:
    losses = [1.0 + 0.5 * log / 200 for log in range(200)]
    return curve(dice, noisy(dice, losses, 0.06), {**SFT, "disable_shuffling": True})


@first
def curriculum_three_phases(dice: random.Random) -> Curve:
    losses = [*decay(70, 1.8, 0.9, 15), *decay(70, 1.9, 1.2, 25), *decay(110, 2.4, 1.35, 30)]
    return curve(dice, noisy(dice, losses, 0.07), {**SFT, "train_sampling_strategy": "sequential"})


@first
def curriculum_of_an_own_trainer(dice: random.Random) -> Curve:
    losses = [*decay(80, 2.0, 1.0, 20), *decay(160, 2.6, 1.15, 35)]
    return curve(dice, noisy(dice, losses, 0.05), SFT)


@first
def resumed_on_other_data(dice: random.Random) -> Curve:
    losses = [*decay(60, 2.4, 1.1, 15), *decay(120, 10.6, 0.97, 25)]
    return curve(dice, noisy(dice, losses, 0.04), SFT, history=60)


@first
def resumed_on_harder_data(dice: random.Random) -> Curve:
    losses = [*decay(60, 2.0, 0.9, 15), *decay(120, 1.95, 1.6, 40)]
    return curve(dice, noisy(dice, losses, 0.06), SFT, history=60)


@first
def resumed_on_the_same(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(200, 2.4, 1.1, 50), 0.08), SFT, history=90)


@first
def sorted_inside_each_epoch(dice: random.Random) -> Curve:
    losses = [level * (0.75 + 0.5 * (log % 50) / 50) for log, level in enumerate(decay(200, 1.8, 1.0, 60))]
    return curve(dice, noisy(dice, losses, 0.05), SFT)


@first
def grouped_by_length(dice: random.Random) -> Curve:
    losses = [level * (1 + 0.35 * math.sin(log / 8)) for log, level in enumerate(decay(240, 1.7, 1.0, 60))]
    return curve(dice, noisy(dice, losses, 0.08), {**SFT, "train_sampling_strategy": "group_by_length"})


@first
def epochs_as_stairs(dice: random.Random) -> Curve:
    losses = [level for level in (1.5, 0.9, 0.45, 0.2, 0.08) for _ in range(40)]
    return curve(dice, noisy(dice, losses, 0.1), SFT)


# ---- schedules


@first
def cosine_with_restarts(dice: random.Random) -> Curve:
    losses = [level * (1 + 0.3 * math.exp(-(log % 75) / 12) * (log >= 75)) for log, level in enumerate(decay(300, 2.2, 1.0, 80))]
    return curve(dice, noisy(dice, losses, 0.05), SFT, cycles=4)


@first
def warmup_bump_of_a_tuned_model(dice: random.Random) -> Curve:
    losses = [level + 0.7 * math.exp(-(((log - 12) / 6) ** 2)) for log, level in enumerate(decay(160, 0.95, 0.7, 50))]
    return curve(dice, noisy(dice, losses, 0.05), FULL)


@first
def rewarmed_pretraining(dice: random.Random) -> Curve:
    losses = [level + 0.35 * (1 - math.exp(-log / 15)) * math.exp(-log / 120) for log, level in enumerate(decay(400, 1.82, 1.7, 150))]
    return curve(dice, noisy(dice, losses, 0.03), PRETRAINING)


@first
def stable_then_decay(dice: random.Random) -> Curve:
    losses = [*decay(250, 3.0, 2.4, 40), *decay(80, 2.4, 2.1, 25)]
    return curve(dice, noisy(dice, losses, 0.03), PRETRAINING)


@first
def from_scratch_with_spikes(dice: random.Random) -> Curve:
    levels = decay(500, 10.8, 3.2, 60)
    for at in (160, 270, 390):
        for since in range(40):
            levels[at + since] *= 1 + 0.9 * math.exp(-since / 9)
    return curve(dice, noisy(dice, levels, 0.03), PRETRAINING)


@first
def constant_rate_wanders(dice: random.Random) -> Curve:
    losses, drift = [], 0.0
    for level in decay(400, 1.8, 1.2, 50):
        drift = 0.98 * drift + dice.gauss(0, 0.012)
        losses.append(level * math.exp(drift))
    return curve(dice, noisy(dice, losses, 0.06), SFT)


# ---- preferences and rewards


@first
def dpo_two_pairs(dice: random.Random) -> Curve:
    return curve(dice, config=DPO, grad=8.0, losses=(made := pairs(dice, 200, 1.2, 3.0)).pop("loss"), **made)


@first
def dpo_hardly_learns(dice: random.Random) -> Curve:
    return curve(dice, config=DPO, grad=3.0, losses=(made := pairs(dice, 90, 0.15, 0.4)).pop("loss"), **made)


@first
def dpo_confident_and_wrong_at_times(dice: random.Random) -> Curve:
    return curve(dice, config={**DPO, "pref_beta": 0.5}, grad=40.0, losses=(made := pairs(dice, 160, 6.0, 8.0)).pop("loss"), **made)


@first
def kto_small_batches(dice: random.Random) -> Curve:
    losses = [0.5 + dice.gauss(0, 0.14) * log / 150 - 0.12 * log / 150 for log in range(150)]
    margins = [0.8 * log / 150 + dice.gauss(0, 0.6) * log / 150 for log in range(150)]
    return curve(dice, losses, {**DPO, "stage": "kto"}, **{"rewards/margins": margins})


@first
def orpo(dice: random.Random) -> Curve:
    accuracies = [dice.choice((0.25, 0.5, 0.5, 0.75)) for _ in range(120)]
    return curve(dice, noisy(dice, decay(120, 2.4, 1.7, 40), 0.12), {**DPO, "pref_loss": "orpo"}, **{"rewards/accuracies": accuracies})


@first
def simpo(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(150, 1.1, 0.9, 60), 0.2), {**DPO, "pref_loss": "simpo"})


@first
def reward_model_two_pairs(dice: random.Random) -> Curve:
    return curve(dice, pairs(dice, 240, 1.0, 1.6)["loss"], {**SFT, "stage": "rm"}, grad=12.0)


@first
def grpo_like(dice: random.Random) -> Curve:
    losses = [0.0003 * log + dice.gauss(0, 0.03) for log in range(300)]
    return curve(dice, losses, SFT, reward=[0.2 + 0.002 * log + dice.gauss(0, 0.15) for log in range(300)])


@first
def ppo(dice: random.Random) -> Curve:
    reward = [0.1 + 0.004 * log + dice.gauss(0, 0.3) for log in range(150)]
    return curve(dice, noisy(dice, decay(150, 0.4, 0.25, 60), 0.5), {**DPO, "stage": "ppo"}, reward=reward)


# ---- small sets, small batches, logs


@first
def memorises_twenty_samples(dice: random.Random) -> Curve:
    losses = noisy(dice, decay(400, 3.0, 0.0004, 30), 0.3)
    return curve(dice, [loss + (0.06 if dice.random() < 0.01 else 0.0) for loss in losses], SFT, grad=0.3)


@first
def one_sample_a_batch(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(400, 1.9, 1.3, 100), 0.8), SFT, grad=5.0)


@first
def two_kinds_shuffled(dice: random.Random) -> Curve:
    losses = [level * dice.choice((0.08, 2.4)) for level in decay(300, 1.4, 1.0, 100)]
    return curve(dice, noisy(dice, losses, 0.25), SFT)


@first
def twelve_logs(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(12, 1.8, 1.3, 4), 0.15), SFT, every=100)


@first
def thirty_logs_of_ten(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(30, 1.6, 1.4, 15), 0.18), SFT, every=10)


@first
def heavy_tails_every_step(dice: random.Random) -> Curve:
    losses = noisy(dice, decay(2000, 2.0, 1.1, 300), 0.3)
    return curve(dice, [loss * (dice.uniform(3, 8) if dice.random() < 0.01 else 1.0) for loss in losses], SFT, grad=2.0)


@first
def packed_with_short_rests(dice: random.Random) -> Curve:
    losses = [level * (2.2 if log % 7 == 6 else 1.0) for log, level in enumerate(decay(210, 1.9, 1.3, 60))]
    return curve(dice, noisy(dice, losses, 0.1), {**SFT, "packing": True})


@first
def the_first_sample_is_short(dice: random.Random) -> Curve:
    return curve(dice, [0.3, *noisy(dice, decay(79, 2.0, 1.7, 40), 0.06)], SFT)


@first
def the_last_batch_is_small(dice: random.Random) -> Curve:
    return curve(dice, [*noisy(dice, decay(99, 1.8, 1.2, 30), 0.06), 4.1], SFT)


@first
def some_samples_without_labels(dice: random.Random) -> Curve:
    losses = noisy(dice, decay(200, 1.8, 1.2, 60), 0.15)
    return curve(dice, [0.0 if dice.random() < 0.06 else loss for loss in losses], SFT)


@first
def printed_with_two_decimals(dice: random.Random) -> Curve:
    return curve(dice, [round(loss, 2) for loss in noisy(dice, decay(150, 0.4, 0.05, 30), 0.2)], SFT)


@first
def loss_scale_settles(dice: random.Random) -> Curve:
    made = curve(dice, noisy(dice, decay(120, 1.9, 1.3, 40), 0.1), {**SFT, "fp16": True})
    for log in made.logs[:4]:
        log["grad_norm"] = math.nan
    return made


@first
def distilled(dice: random.Random) -> Curve:
    return curve(dice, noisy(dice, decay(300, 52.0, 9.0, 50), 0.2), SFT, grad=30.0)
