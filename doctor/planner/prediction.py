"""Predicted memory of a run and of its patched config, anchored on what the run itself measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from doctor.config.options import effective
from doctor.planner.situation import Situation
from doctor.planner.types import Memory

if TYPE_CHECKING:
    from doctor.memory.estimate import Estimate

EXPLAINED = 0.5
"""Minimum share of the run's memory that the estimate must explain; below, it has missed what filled the GPU and its differences say
nothing. Of 95 published single-GPU runs, none held more than 1.05 times its estimate."""
TRAINED = 1.5
"""A run that trained before it failed had batches that fit: the one that did not is taken to need at most this many times the GPU's memory,
though the estimate, for samples as long as cutoff_len, may say more."""


class Predictor:
    """Predicted peaks of one GPU, GiB. `before` is what the failed run needed: at least what it held plus what it asked for.

    A peak up to `enough` fits, one up to `tight` may fit.
    """

    def __init__(self, situation: Situation, facts: Mapping[str, Any], base: Estimate, limits: tuple[float, float]) -> None:
        self.facts = dict(facts)
        self.base = base
        self.enough, self.tight = limits
        self.capacity = base.capacity_gib or 0.0
        expected = base.allocated_gib if not situation.run_shape.get("last_step") else min(base.allocated_gib, TRAINED * self.capacity)
        self.before = max(expected, _measured(facts) or self.capacity)
        self._known: dict[str, Estimate | None] = {str(sorted(situation.config.items(), key=str)): base}

    @classmethod
    def for_run(cls, situation: Situation, facts: Mapping[str, Any], gpu_memory_gib: float | None) -> Predictor | None:
        """None if nothing can be predicted: model or GPU of unknown size, or a run that held far more than the estimate explains."""
        from doctor.memory.estimate import FITS, TIGHT

        known = {**situation.facts, **facts}
        capacity = gpu_memory_gib or known.get("gpu.total_gib") or facts.get("total_gib")
        known |= {"gpu.total_gib": float(capacity)} if isinstance(capacity, int | float) and capacity > 0 else {}
        base = _estimate(situation, known)
        if base is None or base.capacity_gib is None or _sharded_over_unknown(situation, known):
            return None
        if base.allocated_gib < EXPLAINED * (_measured(facts) or base.capacity_gib):
            return None
        return cls(situation, known, base, (FITS * base.capacity_gib, TIGHT * base.capacity_gib))

    def after(self, situation: Situation) -> float | None:
        """The predicted peak after a change: the larger of two readings, the same difference in GiB or the same ratio."""
        estimate = self.estimate(situation)
        if estimate is None:
            return None
        change = self.base.allocated_gib - estimate.allocated_gib
        return max(self.before - change, self.before * estimate.allocated_gib / self.base.allocated_gib)

    def estimate(self, situation: Situation) -> Estimate | None:
        """The bare estimate of a situation, remembered."""
        key = str(sorted(situation.config.items(), key=str))
        if key not in self._known:
            env = {name: value for name, value in situation.facts.items() if name.startswith("env.")}
            self._known[key] = _estimate(situation, {**self.facts, **env})
        return self._known[key]

    def memory(self, situation: Situation) -> Memory:
        """Before and after, for the report."""
        estimate, after = self.estimate(situation), self.after(situation)
        if estimate is None or after is None:
            return Memory(round(self.before, 1), None, None, None, round(self.capacity, 1))
        share = after / estimate.allocated_gib
        low, high = estimate.low_gib * share, estimate.high_gib * share
        before, after, low, high, capacity = (round(figure, 1) for figure in (self.before, after, low, high, self.capacity))
        return Memory(before, after, low, high, capacity, (_parts(self.base, self.before), _parts(estimate, after)))


def filled_by_something_else(situation: Situation, facts: Mapping[str, Any], gpu_memory_gib: float | None) -> bool:
    """Whether model and GPU are known and the run held far more than the estimate explains: what would free the GPU is not known."""
    known = {**situation.facts, **facts}
    capacity = gpu_memory_gib or known.get("gpu.total_gib") or facts.get("total_gib")
    base = _estimate(situation, known)
    if base is None or not isinstance(capacity, int | float) or _sharded_over_unknown(situation, known):
        return False
    return base.allocated_gib < EXPLAINED * (_measured(facts) or float(capacity))


_WORLD = ("world_size", "n_gpus", "gpu.count")
"""Facts that tell how many GPUs share the work (doctor/memory/setup.py)."""
_STANDING = ("weights", "adapters", "optimizer", "reference_models", "gathered_weights", "buckets", "stray_embedding")
"""Terms present in every phase of a step (doctor/memory/phases.py); the others make up the rest of the peak."""


def _parts(estimate: Estimate, peak: float) -> dict[str, float]:
    """GiB at the peak: the permanent terms, the `step` (activations, gradients, logits), and what a measured peak has on top."""
    parts = {name: estimate.terms[name] for name in _STANDING if estimate.terms.get(name, 0.0) >= 0.005}
    parts["step"] = max(0.0, estimate.allocated_gib - sum(parts.values()))
    parts["unexplained"] = max(0.0, peak - sum(parts.values()))
    return {name: round(gib, 2) for name, gib in parts.items() if gib >= 0.005}


def _sharded_over_unknown(situation: Situation, facts: Mapping[str, Any]) -> bool:
    """Whether the run is split over a number of GPUs that is not known: on one GPU the estimate would be several times too high."""
    config = effective(situation.config, facts)
    return bool(config.get("zero_stage") or config.get("fsdp")) and not any(facts.get(name) for name in _WORLD)


def _measured(facts: Mapping[str, Any]) -> float | None:
    """GiB that PyTorch held plus what it was refused, from the error message."""
    held, wanted = facts.get("allocated_gib"), facts.get("wanted_gib")
    return float(held + wanted) if isinstance(held, int | float) and isinstance(wanted, int | float) else None


def _estimate(situation: Situation, facts: Mapping[str, Any]) -> Estimate | None:
    """The estimate; None if the model's shape is unknown or the config holds unusable values."""
    from doctor.errors import DoctorError
    from doctor.memory.estimate import estimate

    try:
        return estimate(effective(situation.config, facts), facts=facts)
    except (DoctorError, ArithmeticError, TypeError, ValueError, LookupError):
        return None
