"""Uncertainty of the estimate: measured over predicted peak, per kind of run."""

from __future__ import annotations

import msgspec

from doctor.memory.setup import Setup
from doctor.memory.shapes import Shape


class Regime(msgspec.Struct, frozen=True):
    """A kind of run whose measured peak / predicted peak lies between `low` and `high`; `notes` are names of words/estimate.yaml."""

    name: str
    low: float
    high: float
    notes: tuple[str, ...] = ()


UNMEASURED = "unmeasured"
"""Note of a regime without measurements."""

# Intervals: measured / predicted in published tables (docs/memory-model.md); those with UNMEASURED are judgements.
SINGLE = Regime("one GPU, dense", 0.96, 1.05)
FSDP_FULL = Regime("FSDP, full", 0.94, 1.05)
FSDP_ADAPTERS = Regime("FSDP, adapters", 0.92, 1.08)
LITGPT = Regime("litgpt", 0.90, 1.18)
ZERO = Regime("DeepSpeed ZeRO", 0.80, 1.30, (UNMEASURED,))
OFFLOAD = Regime("offload", 0.75, 1.40, (UNMEASURED,))
ZERO3_ADAPTERS = Regime("ZeRO-3, adapters", 0.80, 1.80, ("zero3_adapters",))
PREFERENCE = Regime("preference training", 0.80, 1.25, (UNMEASURED,))
PPO = Regime("PPO", 0.70, 1.60, (UNMEASURED,))
EXPERTS = Regime("mixture of experts", 0.85, 1.25, (UNMEASURED,))
HYBRID = Regime("hybrid layers", 0.75, 1.50, (UNMEASURED,))
VISION = Regime("vision", 0.80, 1.30, (UNMEASURED,))
EAGER = Regime("eager attention", 0.85, 1.15, (UNMEASURED,))


def regime_of(setup: Setup, shape: Shape) -> Regime:
    """The regime of a setup: the first in this order that applies."""
    if setup.stack.startswith("litgpt"):
        return LITGPT
    if setup.offload or setup.zero.offload_optimizer or setup.zero.offload_params:
        return OFFLOAD
    if setup.stage == "ppo":
        return PPO
    if setup.zero_stage == 3 and not setup.full:
        return ZERO3_ADAPTERS
    if setup.zero_stage:
        return ZERO
    if shape.mixer is not None or shape.streams > 1:
        return HYBRID
    if shape.vision is not None:
        return VISION
    if setup.stage in ("dpo", "kto", "rm"):
        return PREFERENCE
    if shape.experts:
        return EXPERTS
    if setup.sharding == "fsdp":
        return FSDP_FULL if setup.full else FSDP_ADAPTERS
    return EAGER if setup.attention == "eager" else SINGLE
