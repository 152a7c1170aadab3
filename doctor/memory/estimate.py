"""Peak GPU memory of one training process: terms, phases, interval, verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.config import files
from doctor.config.values import is_true
from doctor.memory import model_config, names, phases, regimes, setup, static
from doctor.memory.gpu import GIB, capacity_gib
from doctor.memory.local_config import place_of
from doctor.memory.setup import Setup
from doctor.memory.shapes import Shape, UnknownShape

Verdict = Literal["fits", "tight", "no", "unknown"]

FITS, TIGHT = 0.88, 0.96
"""Limits of predicted peak / usable memory: up to FITS it fits, up to TIGHT it may. 389 published runs and failures separate best at
0.95."""

CONTEXT_GIB = 0.92
"""CUDA context, cuBLAS and NCCL: the least that nvidia-smi showed above torch's own peak in 284 runs on A100."""

DYNAMIC_SLACK = 0.05
"""What the allocator cannot avoid holding on top of activations (3 to 8 % in the same runs); everything above that it gives back."""

MAY_SHOW = 1.3
"""nvidia-smi over torch's peak: cached blocks made the median run show 32 % more than it needed."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A predicted peak on one GPU; everything in GiB.

    `allocated_gib` is torch.cuda.max_memory_allocated, between `low_gib` and `high_gib` by the `regime`; `device_gib` what the card must
    have free; `may_show_gib` what nvidia-smi may display where there is room. `phases` are the peaks of each phase, `terms` their parts.
    """

    model: str
    assumed: dict[str, Any]
    allocated_gib: float
    low_gib: float
    high_gib: float
    device_gib: float
    may_show_gib: float
    peak_phase: str
    phases: dict[str, float]
    terms: dict[str, float]
    eval_gib: float | None
    capacity_gib: float | None
    verdict: Verdict
    regime: str
    notes: list[str]
    params_b: float
    trained_params: int

    @property
    def runner_up(self) -> str | None:
        """The second highest phase: what would be the peak if the first were made smaller."""
        order = sorted(self.phases, key=self.phases.__getitem__, reverse=True)
        return order[1] if len(order) > 1 else None

    @property
    def margin_gib(self) -> float | None:
        """Usable memory left over (negative: missing), in GiB; None if the GPU is not known."""
        return None if self.capacity_gib is None else self.capacity_gib - self.allocated_gib

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, GiB to three decimals."""
        raw = msgspec.to_builtins(self)
        for name, value in raw.items():
            if isinstance(value, float):
                raw[name] = round(value, 3)
        for name in ("phases", "terms"):
            raw[name] = {part: round(value, 3) for part, value in raw[name].items()}
        margin = self.margin_gib
        return {**raw, "runner_up": self.runner_up, "margin_gib": None if margin is None else round(margin, 3)}


def estimate(config: Mapping[str, Any] | str | Path, *, facts: Mapping[str, Any] | None = None) -> Estimate:
    """The peak memory of one GPU for a LLaMA-Factory configuration (a mapping, or the path of its YAML or JSON file).

    `facts` are things known about the run (the names of `Fact` events: world_size, gpu.name, gpu.total_gib, versions.transformers,
    model.config, ...; `length` for the longest padded sample in tokens). Raises UnknownShape for a model of unknown size, DoctorError
    for a file that cannot be read.
    """
    known = dict(facts or {})
    if not isinstance(config, Mapping):
        known.setdefault("config.folder", str(Path(config).parent))
        config = read_config(Path(config))
    shape = shape_for(config, known)
    if str(known.get("stack", "")).startswith("litgpt"):
        shape = msgspec.structs.replace(shape, tied=False)  # its checkpoints store the head apart
    return build(setup.read(config, known, shape), shape, config, known)


def read_config(path: Path) -> dict[str, Any]:
    """The options in a YAML or JSON training file, as LLaMA-Factory would load them. Raises DoctorError."""
    return files.read_values(path)


def shape_for(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Shape:
    """The model's shape: what the run printed, saved or was given (fact model.config), its config.json on this machine, or the table.

    Raises UnknownShape, naming the model.
    """
    name = str(config.get("model_name_or_path") or config.get("model") or "")
    printed = _printed_shape(facts)
    try:
        if not name:
            raise UnknownShape("the configuration names no model (model_name_or_path)")
        known = names.lookup(name, place_of(config, facts))
    except UnknownShape:
        if printed is None:
            raise
        return printed
    if printed is None:
        return known
    return msgspec.structs.replace(printed, vision=printed.vision or known.vision, other_towers=printed.other_towers or known.other_towers)


def _printed_shape(facts: Mapping[str, Any]) -> Shape | None:
    """The shape in the model config that the run printed, or that was given."""
    raw = facts.get("model.config")
    try:
        return model_config.from_config(raw) if isinstance(raw, Mapping) else None
    except UnknownShape:
        return None


def build(plan: Setup, shape: Shape, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Estimate:
    """The estimate of a setup: terms, then phases, then what follows from the highest of them."""
    trained = static.Trained(plan, shape)
    terms = phases.terms_of(plan, shape, trained)
    peaks = phases.peaks_of(plan, shape, trained, terms)
    peak = max(peaks, key=peaks.__getitem__)
    allocated = peaks[peak] / GIB
    dynamic = max(0.0, peaks[peak] - sum(terms[name] for name in ("weights", "adapters", "optimizer"))) / GIB
    regime = regimes.regime_of(plan, shape)
    capacity = _capacity(facts)
    return Estimate(
        model=str(config.get("model_name_or_path") or config.get("model") or shape.type),
        assumed=_assumed(plan, facts),
        allocated_gib=allocated,
        low_gib=allocated * regime.low,
        high_gib=allocated * regime.high,
        device_gib=allocated + CONTEXT_GIB + DYNAMIC_SLACK * dynamic,
        may_show_gib=min(allocated * MAY_SHOW + CONTEXT_GIB, capacity or float("inf")),
        peak_phase=peak,
        phases={name: value / GIB for name, value in peaks.items()},
        terms={name: value / GIB for name, value in terms.items() if value},
        eval_gib=peaks["evaluation"] / GIB if "evaluation" in peaks else None,
        capacity_gib=capacity,
        verdict=verdict(allocated, capacity),
        regime=regime.name,
        notes=[*regime.notes, *_notes(plan, shape, config)],
        params_b=round(shape.params / 1e9, 3),
        trained_params=round(trained.total),
    )


def verdict(allocated_gib: float, capacity: float | None) -> Verdict:
    """Whether a predicted peak fits into usable memory; never a bare yes near the edge."""
    if capacity is None:
        return "unknown"
    share = allocated_gib / capacity
    return "fits" if share <= FITS else "tight" if share <= TIGHT else "no"


def anchored(before: Estimate, after: Estimate, measured_gib: float) -> Estimate:
    """`after` corrected by a measured peak of `before`: only the change between the two is predicted, which is far more exact.

    The interval shrinks to the share of the change: half of the regime's width of the difference, and 2 % of the measured peak.
    """
    change = after.allocated_gib - before.allocated_gib
    allocated = max(0.1, measured_gib + change)
    spread = 0.02 * measured_gib + abs(change) * max(1 - after.low_gib / after.allocated_gib, after.high_gib / after.allocated_gib - 1) * 2
    offset = allocated - after.allocated_gib
    return msgspec.structs.replace(
        after,
        allocated_gib=allocated,
        low_gib=max(0.0, allocated - spread),
        high_gib=allocated + spread,
        device_gib=max(allocated, after.device_gib + offset),
        may_show_gib=max(allocated, after.may_show_gib + offset),
        phases={name: max(0.0, value + offset) for name, value in after.phases.items()},
        eval_gib=None if after.eval_gib is None else max(0.0, after.eval_gib + offset),
        verdict=verdict(allocated, after.capacity_gib),
        notes=[*after.notes, f"anchored on a measured peak of {measured_gib:.2f} GiB"],
    )


def _capacity(facts: Mapping[str, Any]) -> float | None:
    for key in ("gpu.total_gib", "gpu.name", "gpu"):
        value = facts.get(key)
        if isinstance(value, int | float | str) and value:
            return capacity_gib(value)
    return None


def _assumed(plan: Setup, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The assumptions behind the figures, named like LLaMA-Factory's options where there is one."""
    return {
        "length": plan.length,
        "length_source": "the longest sample seen" if facts.get("length") else "cutoff_len: no sample can be longer, most are shorter",
        "per_device_train_batch_size": plan.micro_batch,
        "sequences": plan.sequences,
        "gpus": plan.world,
        "sharding": plan.sharding,
        "quantization": plan.quantized or "none",
        "computed_in_bits": 8 * plan.compute_bytes,
        "trained_bytes": plan.master_bytes if plan.full else plan.adapter_bytes,
        "optimizer": plan.optimizer.name,
        "gradient_checkpointing": plan.checkpointing,
        "attention": plan.attention,
        "loss": plan.loss,
        "transformers": str(facts.get("versions.transformers") or "that of LLaMA-Factory 0.9.5"),
        "eval_batch": plan.eval_sequences or None,
    }


MIXER_KERNELS = {
    "delta_net": "gated delta net layers (flash-linear-attention)",
    "mamba2": "Mamba layers (mamba-ssm and causal-conv1d)",
}
"""Kind of mixer that has kernels of its own -> what its layers are called, and the packages with the kernels."""


def _notes(plan: Setup, shape: Shape, config: Mapping[str, Any]) -> list[str]:
    notes = []
    name = str(config.get("model_name_or_path") or config.get("model") or "")
    base = names.base_of(name)
    if base is not None and shape.type == base.shape.type and shape.params == base.shape.params:
        notes.append(f"{name} is not a known model: by its name it is taken to have the shape of {base.names[0]}")
    if plan.optimizer.paged:
        notes.append("paged optimizer states are managed memory: on the GPU while there is room, but not PyTorch's and not counted")
    if plan.eval_sequences > plan.sequences and config.get("per_device_eval_batch_size") is None:
        notes.append(f"per_device_eval_batch_size is not set: transformers' default of {setup.DEFAULT_EVAL_BATCH} is counted")
    if plan.loss == "plain" and is_true(config.get("enable_liger_kernel")):
        notes.append("Liger's fused loss is off here (stage or model type): logits are counted in full")
    if plan.packed_experts and not plan.full:
        notes.append("transformers 5 keeps experts as one tensor a layer: they are neither quantised by bitsandbytes nor given adapters")
    if shape.mixer is not None and shape.mixer.kind in MIXER_KERNELS:
        notes.append(f"{MIXER_KERNELS[shape.mixer.kind]} are counted with their fused kernels; PyTorch's fallback needs far more there")
    if plan.sharding == "fsdp" and plan.accumulates:
        notes.append("FSDP holds whole gradients between accumulated micro batches unless sync_each_batch is set: not counted")
    if shape.vision is not None:
        notes.append(f"one image a sample of at most {plan.image_pixels:.0f} pixels; its tokens are counted inside the length")
    return notes
