"""The search for the largest that fits."""

from __future__ import annotations

import pytest

from doctor.errors import DoctorError
from doctor.memory.estimate import FITS, estimate
from doctor.memory.fit import fit

QLORA = {
    "model_name_or_path": "Qwen/Qwen2.5-7B",
    "finetuning_type": "lora",
    "quantization_bit": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "cutoff_len": 4096,
    "bf16": True,
}


@pytest.mark.parametrize("gib", [12, 24, 80])
def test_the_largest_fits_and_the_next_does_not(gib):
    """cutoff_len and batch found are at the edge: they fit with the margin, eight tokens or one sequence more do not."""
    facts = {"gpu.total_gib": gib}
    found = fit(QLORA, facts=facts)
    room = FITS * found.capacity_gib
    for key, value, step in (("cutoff_len", found.cutoff_len, 8), ("per_device_train_batch_size", found.batch, 1)):
        if value is None:
            assert estimate({**QLORA, key: step}, facts=facts).allocated_gib > room
            continue
        assert estimate({**QLORA, key: value}, facts=facts).allocated_gib <= room
        assert estimate({**QLORA, key: value + step}, facts=facts).allocated_gib > room


def test_neutral_changes_come_first_and_keep_the_effective_batch():
    """A batch too large for the card is cured without changing the training: Liger, or micro batch down and accumulation up."""
    found = fit(QLORA, facts={"gpu.total_gib": 24})
    assert found.changes
    assert all(step.neutral for step in found.changes)
    options = {**QLORA, **found.to_dict()["changes"]}
    assert options["per_device_train_batch_size"] * options["gradient_accumulation_steps"] == 8
    assert found.after.verdict == "fits"


def test_what_fits_is_left_alone():
    """Nothing is proposed where nothing is needed."""
    assert fit(QLORA, facts={"gpu.total_gib": 80}).changes == ()


def test_full_tuning_on_a_small_card_becomes_something_else_or_nothing():
    """7B full on 24 GB needs a change of training and says so; on 6 GB nothing known here helps."""
    full = {**QLORA, "finetuning_type": "full", "quantization_bit": None, "per_device_train_batch_size": 1, "cutoff_len": 2048}
    found = fit(full, facts={"gpu.total_gib": 24})
    assert found.changes is not None
    assert found.to_dict()["neutral"] is False
    assert found.after.verdict == "fits"
    assert fit(full, facts={"gpu.total_gib": 4}).changes is None


def test_evaluation_is_cured_by_its_own_batch():
    """Where only evaluation is too large, its batch is what changes."""
    config = {**QLORA, "per_device_train_batch_size": 1, "cutoff_len": 2048, "eval_strategy": "steps", "val_size": 0.1}
    found = fit(config, facts={"gpu.total_gib": 24})
    assert found.to_dict()["changes"] == {"per_device_eval_batch_size": 1}


def test_without_a_card_there_is_no_search():
    """The error says which option is missing."""
    with pytest.raises(DoctorError, match="--gpu-memory"):
        fit(QLORA)
