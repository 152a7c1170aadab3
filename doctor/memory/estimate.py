"""The peak GPU memory of one training process: its parts, phases, interval and verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.config import files
from doctor.config.values import is_true
from doctor.memory import model_config, names, phases, regimes, static
from doctor.memory.gpu import GIB, capacity_gib
from doctor.memory.local_config import place_of
from doctor.memory.setup import DEFAULT_EVAL_BATCH, Setup
from doctor.memory.setup import read as read_setup
from doctor.memory.shapes import Shape, UnknownShape
from doctor.support.texts import Text
from doctor.words import catalogue

Verdict = Literal["fits", "tight", "no", "unknown"]

FITS, TIGHT = 0.88, 0.96
"""Verdict by predicted peak / usable memory: up to FITS it fits, up to TIGHT it may fit. On 389 published runs and failures the limit
with the fewest errors is 0.95."""

CONTEXT_GIB = 0.92
"""CUDA context, cuBLAS and NCCL: the smallest difference between nvidia-smi and torch's peak in 284 runs on A100."""

ALLOCATOR_SLACK = 0.05
"""Share of the activations that the allocator holds in addition and cannot free (3 to 8 % in the same runs)."""

NVIDIA_SMI_FACTOR = 1.3
"""What nvidia-smi shows / torch's peak: with cached blocks the median run showed 32 % more than it needed."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A predicted peak on one GPU, in GiB.

    - `allocated_gib`: torch.cuda.max_memory_allocated; `low_gib` to `high_gib`: its interval, which depends on the `regime`.
    - `device_gib`: what must be free on the GPU; `may_show_gib`: what nvidia-smi may show if there is room.
    - `phases`: the peak of each phase; `terms`: the parts of the memory, not all present at the same time.
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
    notes: list[Text]
    params_b: float
    trained_params: int

    @property
    def runner_up(self) -> str | None:
        """The phase with the second highest peak: it limits what a smaller first peak can save."""
        order = sorted(self.phases, key=self.phases.__getitem__, reverse=True)
        return order[1] if len(order) > 1 else None

    @property
    def margin_gib(self) -> float | None:
        """Usable memory minus the peak in GiB (negative: missing); None if the GPU is not known."""
        return None if self.capacity_gib is None else self.capacity_gib - self.allocated_gib

    def _repr_html_(self) -> str:
        """How a notebook shows it: whether it fits, and the parts of the memory as bars."""
        from doctor.memory.display import estimate_html

        return estimate_html(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able data, GiB rounded to three decimals; texts in English."""
        raw = msgspec.to_builtins(self)
        for name, value in raw.items():
            if isinstance(value, float):
                raw[name] = round(value, 3)
        for name in ("phases", "terms"):
            raw[name] = {part: round(value, 3) for part, value in raw[name].items()}
        raw["notes"] = [note.en for note in self.notes]
        raw["assumed"]["length_source"] = self.assumed["length_source"].en
        margin = self.margin_gib
        return {**raw, "runner_up": self.runner_up, "margin_gib": None if margin is None else round(margin, 3)}


def estimate(config: Mapping[str, Any] | str | Path, *, facts: Mapping[str, Any] | None = None) -> Estimate:
    """Predict the peak memory of one GPU for a LLaMA-Factory configuration (a mapping, or the path of its YAML or JSON file).

    `facts` are facts about the run by their registered names (world_size, gpu.name, gpu.total_gib, versions.transformers, model.config,
    ...), among them `length`, the longest padded sample in tokens. Raises UnknownShape for a model of unknown size, DoctorError for a file
    that cannot be read.
    """
    known = dict(facts or {})
    if not isinstance(config, Mapping):
        known.setdefault("config.folder", str(Path(config).parent))
        config = read_config(Path(config))
    shape = shape_for(config, known)
    if str(known.get("stack", "")).startswith("litgpt"):
        shape = msgspec.structs.replace(shape, tied=False)  # its checkpoints store the head separately
    return build(read_setup(config, known, shape), shape, config, known)


def read_config(path: Path) -> dict[str, Any]:
    """The options in a YAML or JSON training file, as LLaMA-Factory would load them. Raises DoctorError."""
    return files.read_values(path)


def shape_for(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Shape:
    """The model's shape: from the config that the run printed, saved or was given, its config.json on this machine, or the known models.

    Raises UnknownShape, naming the model.
    """
    name = str(config.get("model_name_or_path") or config.get("model") or "")
    printed = _printed_shape(facts)
    try:
        if not name:
            raise UnknownShape(catalogue.text("errors.no_model"))
        known = names.lookup(name, place_of(config, facts))
    except UnknownShape:
        if printed is None:
            raise
        return printed
    if printed is None:
        return known
    return msgspec.structs.replace(printed, vision=printed.vision or known.vision, other_towers=printed.other_towers or known.other_towers)


def _printed_shape(facts: Mapping[str, Any]) -> Shape | None:
    """The shape in the fact model.config, if it can be read."""
    raw = facts.get("model.config")
    try:
        return model_config.from_config(raw) if isinstance(raw, Mapping) else None
    except UnknownShape:
        return None


def build(setup: Setup, shape: Shape, config: Mapping[str, Any], facts: Mapping[str, Any]) -> Estimate:
    """The estimate of a setup: the parts, the phases, and the figures of the highest phase."""
    trained = static.Trained(setup, shape)
    terms = phases.terms_of(setup, shape, trained)
    peaks = phases.peaks_of(setup, shape, trained, terms)
    peak = max(peaks, key=peaks.__getitem__)
    allocated = peaks[peak] / GIB
    dynamic = max(0.0, peaks[peak] - sum(terms[name] for name in ("weights", "adapters", "optimizer"))) / GIB
    regime = regimes.regime_of(setup, shape)
    capacity = _capacity(facts)
    return Estimate(
        model=str(config.get("model_name_or_path") or config.get("model") or shape.type),
        assumed=_assumed(setup, facts),
        allocated_gib=allocated,
        low_gib=allocated * regime.low,
        high_gib=allocated * regime.high,
        device_gib=allocated + CONTEXT_GIB + ALLOCATOR_SLACK * dynamic,
        may_show_gib=min(allocated * NVIDIA_SMI_FACTOR + CONTEXT_GIB, capacity or float("inf")),
        peak_phase=peak,
        phases={name: value / GIB for name, value in peaks.items()},
        terms={name: value / GIB for name, value in terms.items() if value},
        eval_gib=peaks["evaluation"] / GIB if "evaluation" in peaks else None,
        capacity_gib=capacity,
        verdict=verdict(allocated, capacity),
        regime=regime.name,
        notes=[*map(_note, regime.notes), *_notes(setup, shape, config)],
        params_b=round(shape.params / 1e9, 3),
        trained_params=round(trained.total),
    )


def verdict(allocated_gib: float, capacity: float | None) -> Verdict:
    """Whether a predicted peak fits into usable memory; `tight` close to the limit."""
    if capacity is None:
        return "unknown"
    share = allocated_gib / capacity
    return "fits" if share <= FITS else "tight" if share <= TIGHT else "no"


def anchored(before: Estimate, after: Estimate, measured_gib: float) -> Estimate:
    """`after`, corrected by a measured peak of `before`: only the difference between the two is predicted, which is more accurate.

    The interval is twice the regime's relative width of the difference, plus 2 % of the measured peak.
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
        notes=[*after.notes, _note("corrected", gib=measured_gib)],
    )


def _capacity(facts: Mapping[str, Any]) -> float | None:
    for key in ("gpu.total_gib", "gpu.name", "gpu"):
        value = facts.get(key)
        if isinstance(value, int | float | str) and value:
            return capacity_gib(value)
    return None


def _assumed(setup: Setup, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The assumptions behind the figures, under the names of LLaMA-Factory's options if they have one."""
    return {
        "length": setup.length,
        "length_source": catalogue.text(f"estimate.say.{_length_source(facts)}"),
        "per_device_train_batch_size": setup.micro_batch,
        "sequences": setup.sequences,
        "gpus": setup.world_size,
        "sharding": setup.sharding,
        "quantization": setup.quantized or "none",
        "computed_in_bits": 8 * setup.compute_bytes,
        "trained_bytes": setup.master_bytes if setup.full else setup.adapter_bytes,
        "optimizer": setup.optimizer.name,
        "gradient_checkpointing": setup.checkpointing,
        "attention": setup.attention,
        "loss": setup.loss,
        "transformers": str(facts.get("versions.transformers") or "as in LLaMA-Factory 0.9.5"),
        "eval_batch": setup.eval_sequences or None,
    }


def _length_source(facts: Mapping[str, Any]) -> str:
    """Key of words/estimate.yaml."""
    return str(facts.get("length.source") or "longest_seen") if facts.get("length") else "cutoff_bound"


OWN_KERNELS = ("delta_net", "mamba2")
"""Kinds of mixer with kernels of their own; each has a note of that name."""


def _note(name: str, /, **values: object) -> Text:
    return catalogue.text(f"estimate.notes.{name}", **values)


def _notes(setup: Setup, shape: Shape, config: Mapping[str, Any]) -> list[Text]:
    notes = []
    name = str(config.get("model_name_or_path") or config.get("model") or "")
    base = names.base_of(name)
    if base is not None and shape.type == base.shape.type and shape.params == base.shape.params:
        notes.append(_note("assumed_base", name=name, base=base.names[0]))
    if setup.optimizer.paged:
        notes.append(_note("paged"))
    if setup.eval_sequences > setup.sequences and config.get("per_device_eval_batch_size") is None:
        notes.append(_note("eval_batch", size=DEFAULT_EVAL_BATCH))
    if setup.loss == "plain" and is_true(config.get("enable_liger_kernel")):
        notes.append(_note("liger_off"))
    if setup.packed_experts and not setup.full:
        notes.append(_note("packed_experts"))
    if shape.mixer is not None and shape.mixer.kind in OWN_KERNELS:
        notes.append(_note(shape.mixer.kind))
    if setup.sharding == "fsdp" and setup.accumulates:
        notes.append(_note("fsdp_accumulation"))
    if shape.vision is not None:
        notes.append(_note("one_image", pixels=setup.image_pixels))
    return notes
