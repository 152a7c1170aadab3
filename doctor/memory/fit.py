"""What fits a GPU: the longest cutoff_len, the largest batch, and the cheapest changes that make a configuration fit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from doctor.config.values import is_true
from doctor.errors import DoctorError
from doctor.memory import setup
from doctor.memory.estimate import FITS, Estimate, build, shape_for
from doctor.words import catalogue

MAX_CUTOFF_LEN = 1 << 20
"""Upper bound of the length search, in tokens."""

MAX_BATCH = 4096
"""Upper bound of the batch search, in sequences per GPU."""


class Step(msgspec.Struct, frozen=True):
    """A change of the configuration: the options to set, its cost (lower is tried first), and if the training result stays the same."""

    name: str
    options: dict[str, Any]
    cost: int
    neutral: bool


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What fits into `capacity_gib` with the safety margin.

    - `cutoff_len`, `batch`: None if not even the smallest fits.
    - `changes`: empty if the configuration already fits, None if no set of changes is enough.
    - `after`: the estimate with `changes`.
    """

    capacity_gib: float
    cutoff_len: int | None
    batch: int | None
    changes: tuple[Step, ...] | None
    after: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        options: dict[str, Any] | None = None
        if self.changes is not None:
            options = {key: value for step in self.changes for key, value in step.options.items()}
        return {
            "largest_cutoff_len": self.cutoff_len,
            "largest_per_device_train_batch_size": self.batch,
            "changes": options,
            "neutral": self.changes is not None and all(step.neutral for step in self.changes),
            "allocated_gib_after": round(self.after.allocated_gib, 3),
        }


def fit(config: Mapping[str, Any], *, facts: Mapping[str, Any] | None = None) -> Fit:
    """Search for what fits. `facts` must name the GPU (`gpu.total_gib` or `gpu.name`); raises DoctorError otherwise."""
    known = dict(facts or {})
    shape = shape_for(config, known)

    def estimate(options: Mapping[str, Any]) -> Estimate:
        merged = {**config, **options}
        return build(setup.read(merged, known, shape), shape, merged, known)

    def with_cutoff(tokens: int) -> Estimate:
        """As if a sample of this length came: what the data sets hold today says nothing of the longest that would fit."""
        merged, facts = {**config, "cutoff_len": tokens}, {name: value for name, value in known.items() if name != "length"}
        return build(setup.read(merged, facts, shape), shape, merged, facts)

    now = estimate({})
    if now.capacity_gib is None:
        raise DoctorError(catalogue.text("errors.no_gpu_memory"))
    steps = tuple(_steps(config, now))
    changes = _cheapest(steps, estimate)
    return Fit(
        capacity_gib=now.capacity_gib,
        cutoff_len=_largest(lambda units: fits(with_cutoff(8 * units)), MAX_CUTOFF_LEN // 8, 8),
        batch=_largest(lambda batch: fits(estimate({"per_device_train_batch_size": batch})), MAX_BATCH, 1),
        changes=changes,
        after=estimate(_merged(changes or ())),
    )


def fits(estimate: Estimate) -> bool:
    """Whether the estimate has the verdict "fits"."""
    return estimate.capacity_gib is not None and estimate.allocated_gib <= FITS * estimate.capacity_gib


def _largest(is_good: Callable[[int], bool], limit: int, unit: int) -> int | None:
    """Binary search for the largest good number of units, times `unit`. Memory is monotonic in length and batch."""
    if not is_good(1):
        return None
    low, high = 1, 2
    while high <= limit and is_good(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    return low * unit


def _cheapest(steps: tuple[Step, ...], estimate: Callable[[Mapping[str, Any]], Estimate]) -> tuple[Step, ...] | None:
    """The cheapest set of up to three changes that fits; None if there is none."""
    if fits(estimate({})):
        return ()
    sets = (chosen for size in (1, 2, 3) for chosen in itertools.combinations(steps, size))
    for chosen in sorted(sets, key=lambda chosen: (sum(step.cost for step in chosen), len(chosen))):
        keys = [key for step in chosen for key in step.options]
        if len(keys) == len(set(keys)) and fits(estimate(_merged(chosen))):
            return chosen
    return None


def _merged(steps: tuple[Step, ...]) -> dict[str, Any]:
    return {key: value for step in steps for key, value in step.options.items()}


def _steps(config: Mapping[str, Any], now: Estimate) -> Iterator[Step]:
    """Changes not yet made in this configuration: first those that keep the training result, then the others."""
    if now.eval_gib is not None:
        yield Step("evaluate one sample at a time", {"per_device_eval_batch_size": 1}, 1, True)
    if not now.assumed["gradient_checkpointing"]:
        yield Step("gradient checkpointing", {"disable_gradient_checkpointing": False, "gradient_checkpointing": True}, 2, True)
    if now.assumed["loss"] == "plain" and not is_true(config.get("enable_liger_kernel")):
        yield Step("Liger kernels", {"enable_liger_kernel": True}, 3, True)
    batch = int(now.assumed["per_device_train_batch_size"])
    accumulation = config.get("gradient_accumulation_steps")
    steps = accumulation if isinstance(accumulation, int) and accumulation > 0 else 1
    for part, cost in ((2, 3), (4, 4), (8, 5), (16, 6), (32, 7), (64, 8)):
        if batch % part == 0:
            smaller = {"per_device_train_batch_size": batch // part, "gradient_accumulation_steps": steps * part}
            yield Step(f"micro batch {batch // part}, accumulation {steps * part}", smaller, cost, True)
    yield from _changing_steps(config, now)


def _changing_steps(config: Mapping[str, Any], now: Estimate) -> Iterator[Step]:
    method = str(config.get("finetuning_type") or "lora")
    if method == "full":
        if not is_true(config.get("pure_bf16")) and now.assumed["sharding"] in ("none", "ddp"):
            yield Step("bfloat16 weights and optimizer", {"pure_bf16": True, "bf16": False, "fp16": False}, 12, False)
        if "8bit" not in now.assumed["optimizer"]:
            yield Step("8-bit optimizer", {"optim": "paged_adamw_8bit"}, 11, False)
        yield Step("LoRA instead of full tuning", {"finetuning_type": "lora", "lora_target": "all"}, 40, False)
    if now.assumed["quantization"] == "none":
        options: dict[str, Any] = {"quantization_bit": 4, "quantization_method": "bnb"}
        if method == "full":
            options |= {"finetuning_type": "lora", "lora_target": "all"}
        yield Step("QLoRA: a 4-bit base", options, 20 if method == "lora" else 50, False)
    length = int(now.assumed["length"])
    for part, cost in ((2, 15), (4, 25), (8, 35)):
        if length // part >= 256:
            yield Step(f"cutoff_len {length // part}", {"cutoff_len": length // part}, cost, False)
