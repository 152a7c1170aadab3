"""The parts of a predicted peak: what stands in memory all the time, the step, and what the estimate does not explain."""

from __future__ import annotations

import msgspec

from doctor.memory import estimate
from doctor.planner.prediction import _parts

CONFIG = {"model_name_or_path": "Qwen/Qwen2.5-7B-Instruct", "stage": "sft", "finetuning_type": "lora", "bf16": True}


def test_parts_add_up_to_the_peak() -> None:
    """A part that would round to 0.00 GiB belongs to the step, one of 0.01 GiB is a part; what was measured on top is told apart."""
    terms = {"weights": 5.0, "adapters": 0.007, "buckets": 0.004, "logits": 0.6}
    known = msgspec.structs.replace(estimate(CONFIG), allocated_gib=6.0, terms=terms)
    assert _parts(known, 6.5) == {"weights": 5.0, "adapters": 0.01, "step": 0.99, "unexplained": 0.5}
    assert _parts(known, 6.0) == {"weights": 5.0, "adapters": 0.01, "step": 0.99}
