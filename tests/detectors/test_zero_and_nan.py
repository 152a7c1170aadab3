"""What loss 0.0 and NaN mean: one cause each, told apart by gradient, learning rate, precision and data."""

from __future__ import annotations

import pytest

from doctor.core.events import Step, Where
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


def test_a_first_gradient_that_is_nan_is_not_blamed_on_the_rate() -> None:
    """The loss of step 1 is sound and its gradient is not: no weight has moved yet, so the rate is no step of the advice."""
    found = diagnose(steps(loss=[1.04, 0.0, 0.0, 0.0], grad_norm=[NAN] * 4, learning_rate=[1.5e-8, 3e-8, 4.5e-8, 6e-8]), config=BF16)
    assert list(found) == ["stability/nonfinite-first-backward"]
    advice = {remedy.id: remedy for remedy in found["stability/nonfinite-first-backward"].rule.remedies}
    assert advice["lower-learning-rate"].excluded is not None
    assert advice["overlap-comm-or-zero3"].excluded is None


@pytest.mark.parametrize(
    ("rate", "step", "batch"),
    [(1e-5, 3, True), (1e-4, 3, False), (1e-5, 4, False)],
    ids=["same step, other rate", "same step, same rate", "other step"],
)
def test_nan_at_the_same_step_with_another_rate_is_that_batch(rate: float, step: int, batch: bool) -> None:
    """Two attempts with one seed; only where the rate differs and the step does not, the samples of that step are named."""
    broken = [step_of(number, 1.5 if number < 3 else NAN, 1e-4, attempt=0) for number in range(1, 6)]
    again = [step_of(number, 1.5 if number < step else NAN, rate, attempt=1) for number in range(1, 7)]
    found = diagnose([*broken, *again], config=BF16)
    assert ("stability/nonfinite-same-step" in found) is batch


def step_of(number: int, loss: float, rate: float, *, attempt: int) -> Step:
    """One logged step of an attempt."""
    return Step(where=Where("a.log", number), step=number, metrics={"loss": loss, "learning_rate": rate}, attempt=attempt)


def test_no_labels_are_blamed_only_where_labels_can_be_masked() -> None:
    """Pre-training masks nothing and a preference loss without labels is ln 2, so a zero loss is another matter there."""
    series = {"loss": [0.0] * 8, "grad_norm": [0.0] * 8}
    assert "stability/zero-loss-no-labels" in diagnose(steps(**series), config={"stage": "sft"})
    for stage in ("pt", "dpo", "kto"):
        assert "stability/zero-loss-no-labels" not in diagnose(steps(**series), config={"stage": stage})
