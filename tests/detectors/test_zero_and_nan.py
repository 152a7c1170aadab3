"""What loss 0.0 and NaN mean: one cause each, told apart by gradient, learning rate, precision and data."""

from __future__ import annotations

import pytest

from tests.detectors.samples import NAN, diagnose, steps

GOOD = [1.8, 1.7, 1.7, 1.6, 1.6]
MOVING = [1e-4 - 1e-6 * i for i in range(12)]
FROZEN = MOVING[:6] + [MOVING[5]] * 6
HIDDEN = {"loss": GOOD + [0.0] * 7, "grad_norm": [0.8] * 5 + [NAN] * 7}
FP16, BF16 = {"fp16": True, "stage": "sft", "finetuning_type": "lora"}, {"bf16": True, "stage": "sft", "finetuning_type": "lora"}
OVERLAP = {**BF16, "deepspeed": {"zero_optimization": {"stage": 2, "overlap_comm": True}}}


@pytest.mark.parametrize(
    ("series", "config", "cause"),
    [
        pytest.param({**HIDDEN, "learning_rate": MOVING}, BF16, "nonfinite_cause_unknown",
                     id="hidden NaN, rate moves: weights are NaN, cause unknown"),
        pytest.param({**HIDDEN, "learning_rate": FROZEN}, FP16, "fp16_overflow",
                     id="hidden NaN in fp16"),
        pytest.param({**HIDDEN, "learning_rate": FROZEN}, BF16, "deepspeed_overlap_comm_nan",
                     id="hidden NaN in bf16, optimizer stands still"),
        pytest.param({**HIDDEN, "learning_rate": MOVING}, OVERLAP,
                     "deepspeed_overlap_comm_nan", id="hidden NaN with overlap_comm"),
        pytest.param({"loss": [2.0, 3.0, NAN, NAN], "learning_rate": [0.02] * 4}, BF16, "lr_too_high", id="NaN at an absurd rate"),
        pytest.param({"loss": GOOD + [0.0] * 7, "grad_norm": [0.8] * 5 + [1.4142135] * 7}, BF16, "deepspeed_overlap_comm_nan",
                     id="zero with a constant gradient"),
        pytest.param({"loss": [0.0] * 8, "grad_norm": [0.0] * 8}, BF16, "all_labels_masked", id="zero with zero gradient from the start"),
        pytest.param({"loss": [NAN] * 4, "grad_norm": [0.0] * 4}, BF16, "all_labels_masked", id="NaN with zero gradient"),
        pytest.param({"loss": GOOD + [0.0] * 7}, {}, "nonfinite_cause_unknown", id="trainer_log alone: zeros, no gradient logged"),
        pytest.param({"loss": [12.1] * 8, "grad_norm": [0.0] * 8, "learning_rate": [0.0] * 8}, {}, "optimizer_steps_skipped",
                     id="rate and gradient stay 0"),
        pytest.param({"loss": [0.5, NAN, NAN], "grad_norm": [4.0, 3.9, 3.1], "kl": [0.0, 0.1, 0.2], "rewards/chosen": [0.0, 0.1, 0.1],
                      "rewards/rejected": [0.0, NAN, NAN]}, {"stage": "kto"}, "kto_batch_one_sided", id="KTO batch of one class"),
        pytest.param({"loss": [0.6, 0.1] + [0.0] * 6, "rewards/margins": [0.2, 4.0] + [16.0] * 6, "rewards/accuracies": [0.6] + [1.0] * 7},
                     {"stage": "dpo"}, "overfitting", id="preference pairs memorised"),
    ],
)  # fmt: skip
def test_one_cause_each(series, config, cause):
    """Every row of the table of zero and NaN losses gives exactly one cause."""
    assert {finding.rule.cause for finding in diagnose(steps(**series), config=config).values()} == {cause}


@pytest.mark.parametrize(
    "series",
    [
        pytest.param({"loss": GOOD * 3, "grad_norm": ([0.8] * 4 + [NAN]) * 3}, id="single steps skipped by the fp16 scaler"),
        pytest.param({"loss": [2.1] * 3 + GOOD * 3, "grad_norm": [NAN] * 3 + [0.8] * 15}, id="the scaler's search at the start"),
        pytest.param({"loss": [0.9, 0.3, 0.05, 0.008, 0.002, 0.0004, 0.0001] + [0.0] * 9}, id="memorised: rounds to zero"),
        pytest.param({"loss": [0.01, -0.02, 0.0, 0.03, -0.01] + [0.0] * 9}, id="GRPO without advantage"),
        pytest.param({"loss": GOOD * 3, "grad_norm": [0.0] * 15}, id="layerwise GaLore logs no gradient"),
    ],
)
def test_normal_zeros_and_nans_are_silent(series):
    """What healthy runs log at times is no finding above a note."""
    assert diagnose(steps(**series)) == {}


def test_an_unproven_nan_is_not_patched():
    """Where nothing proves the cause of a NaN, the finding's confidence stays below the limit for a patch."""
    (found,) = diagnose(steps(loss=[1.5, 1.4, NAN, NAN])).values()
    assert found.confidence < 0.5


def test_a_nan_run_says_where_it_was_last_sound():
    """The finding names the first bad step and the last good loss before it."""
    (found,) = diagnose(steps(loss=[1.5, 1.4, NAN, NAN, NAN])).values()
    assert (found.first.facts["step"], found.first.facts["last_good"], found.first.facts["last_good_step"]) == (3, 1.4, 2)
