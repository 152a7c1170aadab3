"""Facts about a trainer, its model and its environment as plain values. Never creates a CUDA context, never raises."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from doctor.privacy.secrets import mask, plain

GIB = 1 << 30
_PACKAGES = {
    "torch": "torch", "transformers": "transformers", "llamafactory": "llamafactory", "peft": "peft", "deepspeed": "deepspeed",
    "accelerate": "accelerate", "trl": "trl", "datasets": "datasets", "bitsandbytes": "bitsandbytes", "flash-attn": "flash_attn",
}  # fmt: skip
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "FORCE_TORCHRUN",
    "NPROC_PER_NODE",
    "OMP_NUM_THREADS",
)
_MAX_LIST = 1000
"""Items of a list in a model's config that are kept; the longest real ones name every layer."""
_ATTENTION = {"flash_attention_2": "fa2", "sdpa": "sdpa", "eager": "eager"}
_ALLOCATOR = {
    "vram_allocated_gib": "allocated_bytes.all.peak",
    "vram_reserved_gib": "reserved_bytes.all.peak",
    "allocated_gib": "allocated_bytes.all.current",
    "reserved_gib": "reserved_bytes.all.current",
    "inactive_split_gib": "inactive_split_bytes.all.current",
}
_COUNTS = {"alloc_retries": "num_alloc_retries", "alloc_failures": "num_ooms"}
"""Metric -> key of torch.cuda.memory_stats (bytes, counts)."""
_YAML_BYTES = 1 << 18
"""Largest part of the YAML that is kept; real ones have 2 KB."""


def given() -> dict[str, Any] | None:
    """The command line and the YAML it names, secrets masked; None without arguments."""
    words = [str(word) for word in sys.argv[:200]]
    place = next((index for index, word in enumerate(words) if word.endswith((".yaml", ".yml"))), None)
    text = None
    if place is not None:
        with contextlib.suppress(OSError):
            text = mask(Path(words[place]).read_bytes()[:_YAML_BYTES].decode("utf-8", "replace"))
    return {"type": "Given", "argv": [mask(word) for word in words], "yaml": text} if len(words) > 1 else None


def effective(args: Any, trainer: Any) -> dict[str, Any]:
    """All option values within reach: the training arguments, and LLaMA-Factory's own if one of its callbacks holds them."""
    values: dict[str, Any] = {}
    for callback in getattr(getattr(trainer, "callback_handler", None), "callbacks", ()):
        for name in ("generating_args", "data_args", "model_args", "finetuning_args"):
            values.update(_as_dict(getattr(callback, name, None)))
    values.update(_as_dict(args))
    return {key: value for key, value in plain(values).items() if not key.startswith("_")}


def _as_dict(args: Any) -> Mapping[str, Any]:
    if args is None:
        return {}
    try:
        values = args.to_dict() if hasattr(args, "to_dict") else vars(args)
    except Exception:  # other people's code
        return {}
    return values if isinstance(values, Mapping) else {}


def facts(args: Any, state: Any, model: Any, trainer: Any) -> Iterator[tuple[str, Any]]:
    """Facts under the names that the readers use; a part that fails is left out."""
    for part in (_environment(), _plan(args, state, trainer), _model(model), _device(args)):
        with contextlib.suppress(Exception):  # other people's objects
            for name, value in part:
                if value is not None:
                    yield name, plain(value)


def _environment() -> Iterator[tuple[str, Any]]:
    yield "versions.python", platform.python_version()
    for package, name in _PACKAGES.items():
        with contextlib.suppress(PackageNotFoundError):
            yield f"versions.{name}", version(package)
    if "llamafactory" in sys.modules:
        yield "framework", "llamafactory"
    for name in _VARIABLES:
        if name in os.environ:
            yield f"env.{name}", os.environ[name]


def _plan(args: Any, state: Any, trainer: Any) -> Iterator[tuple[str, Any]]:
    yield "run.started_training", True
    planned = getattr(state, "max_steps", None) or getattr(state, "num_training_steps", None)
    yield "steps.planned", planned if isinstance(planned, int) and planned > 0 else None
    world = getattr(args, "world_size", None)
    per_device, accumulation = getattr(args, "train_batch_size", None), getattr(args, "gradient_accumulation_steps", None)
    yield "world_size", world
    yield "batch.per_device", getattr(args, "per_device_train_batch_size", None)
    yield "batch.accumulation", accumulation
    if isinstance(world, int) and isinstance(per_device, int) and isinstance(accumulation, int):
        yield "batch.total", per_device * accumulation * world
    yield "epochs.planned", float(state.num_train_epochs) if getattr(state, "num_train_epochs", None) else None
    with contextlib.suppress(TypeError, AttributeError):  # an iterable dataset has no length
        yield "examples.num", len(trainer.train_dataset)


def _model(model: Any) -> Iterator[tuple[str, Any]]:
    if model is None:
        return
    counts = [(_elements(parameter), parameter.requires_grad) for parameter in model.parameters()]
    yield "model.params", sum(count for count, _ in counts)
    yield "model.trainable_params", sum(count for count, trained in counts if trained)
    config = getattr(model, "config", None)
    yield "model.type", getattr(config, "model_type", None)
    yield "attention", _ATTENTION.get(str(getattr(config, "_attn_implementation", None)))
    yield "gradient_checkpointing", bool(getattr(model, "is_gradient_checkpointing", False)) or None
    yield "model.config", _sizes(config) or None


def _sizes(config: Any) -> dict[str, Any]:
    """The model's config without what is private to transformers (the path it was loaded from among it)."""
    write = getattr(config, "to_dict", None)
    raw: dict[Any, Any] = write() if callable(write) else dict(getattr(config, "__dict__", {}))
    return {str(name): _plain(value) for name, value in raw.items() if value is not None and not str(name).startswith("_")}


def _plain(value: Any) -> Any:
    """A config's value as JSON data: nested configs and lists of layers stay, everything else becomes a text."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value[:_MAX_LIST]]
    return value if isinstance(value, (bool, int, float)) or value is None else str(value)


def _elements(parameter: Any) -> int:
    """Elements of a parameter, also if ZeRO-3 shards it or bitsandbytes packs it (two 4-bit weights per byte)."""
    count = int(getattr(parameter, "ds_numel", None) or parameter.numel())
    return count * 2 * parameter.element_size() if type(parameter).__name__ == "Params4bit" else count


def _device(args: Any) -> Iterator[tuple[str, Any]]:
    yield "device", getattr(getattr(args, "device", None), "type", None)
    used = cuda()
    if used is not None:
        card = used.get_device_properties(used.current_device())
        yield "gpu.name", card.name
        yield "gpu.total_gib", round(card.total_memory / GIB, 2)
        yield "gpu.count", used.device_count()


def cuda() -> Any:
    """torch.cuda if this process has initialized it, else None.

    `is_available` is not asked: it may initialize the driver, after which a forked worker cannot use CUDA.
    """
    found = getattr(sys.modules.get("torch"), "cuda", None)
    return found if found is not None and found.is_initialized() else None


def allocator() -> dict[str, float]:
    """torch's CUDA allocator: GiB allocated and reserved (now and peak), GiB in inactive split blocks, retries and failures."""
    try:
        card = cuda()
        stats = card.memory_stats() if card is not None else {}
    except Exception:  # after a device-side failure even this can raise
        return {}
    out = {name: round(stats[key] / GIB, 3) for name, key in _ALLOCATOR.items() if key in stats}
    out.update({name: float(stats[key]) for name, key in _COUNTS.items() if key in stats})
    return out
