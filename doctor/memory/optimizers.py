"""Memory of optimizers: states per trained parameter and temporaries of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec


class Optimizer(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of an optimizer per trained parameter.

    - `states`: tensors in the parameter's dtype; `state_bytes`: bytes of all states instead, if they have their own dtype (8-bit).
    - `temporary`: tensors in the parameter's dtype during a step (foreach implementations update all parameters at once).
    - `largest`: float32 tensors of the size of the largest matrix (implementations that loop over parameters).
    - `gradients`: share of gradients alive at once; 0 if applied inside backward.
    - `blocks`: trains a layer at a time (BAdam). `low_rank`: rank of the projected states (GaLore).
    """

    name: str
    states: float = 2
    state_bytes: float | None = None
    temporary: float = 0
    largest: float = 0
    gradients: float = 1
    paged: bool = False
    blocks: bool = False
    low_rank: int = 0


ADAM_FOREACH = Optimizer(name="adamw", temporary=1)
"""torch.optim.AdamW without fused=True: _multi_tensor_adamw holds sqrt(exp_avg_sq) of all parameters at once."""

OPTIMIZERS: tuple[tuple[str, Optimizer], ...] = (
    (r"optim_in_bwd", Optimizer(name="adamw in backward", gradients=0)),
    (r"paged.*(ademamix).*8", Optimizer(name="paged_ademamix_8bit", state_bytes=3.05, paged=True)),
    (r"paged.*lion.*8", Optimizer(name="paged_lion_8bit", state_bytes=1.02, paged=True)),
    (r"lion.*8", Optimizer(name="lion_8bit", state_bytes=1.02)),
    (r"ademamix.*8", Optimizer(name="ademamix_8bit", state_bytes=3.05)),
    (r"rmsprop.*8", Optimizer(name="rmsprop_8bit", state_bytes=1.02)),
    (r"paged.*8", Optimizer(name="paged_adamw_8bit", state_bytes=2.03, paged=True)),
    (r"8bit", Optimizer(name="adamw_8bit", state_bytes=2.03)),
    (r"4bit|adamw4", Optimizer(name="adamw_4bit", state_bytes=1.03)),
    (r"paged.*lion", Optimizer(name="paged_lion", states=1, paged=True)),
    (r"paged", Optimizer(name="paged_adamw", state_bytes=8, paged=True)),
    (r"adalomo", Optimizer(name="adalomo", state_bytes=0.01, largest=3, gradients=0)),
    (r"lomo", Optimizer(name="lomo", state_bytes=0, largest=1, gradients=0)),
    (r"galore.*layerwise", Optimizer(name="galore_layerwise", low_rank=16, largest=2, gradients=0)),
    (r"galore", Optimizer(name="galore", low_rank=16, largest=2)),
    (r"apollo", Optimizer(name="apollo", low_rank=16, largest=2)),
    (r"adafactor", Optimizer(name="adafactor", state_bytes=0.01, largest=3)),
    (r"adam_?mini", Optimizer(name="adam_mini", states=1, largest=2)),
    (r"ademamix", Optimizer(name="ademamix", states=3)),
    (r"muon", Optimizer(name="muon", states=1, largest=4)),
    (r"lion|adagrad|rmsprop", Optimizer(name="one state", states=1)),
    (r"sgd", Optimizer(name="sgd", states=0)),
    (r"schedule_free", Optimizer(name="schedule_free", states=2, temporary=1)),
    (r"fused|apex|bnb|anyprecision|npu", Optimizer(name="adamw_fused")),
)
"""Pattern of `optim` -> its memory; the first match wins.

- 8-bit: a byte per state, a float32 scale per block of 256 (bitsandbytes); 4-bit: blocks of 128 (torchao).
- Adafactor: a row and a column per matrix (transformers/optimization.py). Adam-mini: a first moment (arXiv 2406.16793).
- LOMO and layer-wise GaLore apply each gradient in backward (arXiv 2306.09782, 2403.03507).
"""


def read(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Optimizer:
    """The optimizer LLaMA-Factory creates (train/trainer_utils.py, create_custom_optimizer), else transformers' `optim`."""
    on = {name for name in ("galore", "apollo", "badam", "adam_mini", "muon") if _on(config.get(f"use_{name}"))}
    if "galore" in on or "apollo" in on:
        name = "galore" if "galore" in on else "apollo"
        layerwise = _on(config.get(f"{name}_layerwise"))
        rank = config.get(f"{name}_rank")
        return Optimizer(
            name=f"{name}{' layer-wise' if layerwise else ''}",
            low_rank=rank if isinstance(rank, int) and rank > 0 else 16,
            largest=2,
            gradients=0 if layerwise else 1,
        )
    if "badam" in on:
        return Optimizer(name="badam", blocks=True, temporary=1)
    named = {"adam_mini": "adam_mini", "muon": "muon"}
    name = next((named[key] for key in named if key in on), None) or str(config.get("optim") or facts.get("optimizer") or "")
    for pattern, optimizer in OPTIMIZERS:
        if re.search(pattern, name.lower()):
            return optimizer
    return Optimizer(name="adamw_fused") if not name.strip("?") and fused_by_default(facts) else ADAM_FOREACH


def fused_by_default(facts: Mapping[str, Any]) -> bool:
    """Whether `optim` defaults to adamw_torch_fused: transformers >= 4.57 with torch >= 2.8.

    Unknown versions count as new enough, as LLaMA-Factory 0.9.5 installs them.
    """
    return _at_least(facts.get("versions.torch"), (2, 8)) and _at_least(facts.get("versions.transformers"), (4, 57))


def _at_least(version: Any, wanted: tuple[int, int]) -> bool:
    found = re.match(r"(\d+)\.(\d+)", str(version or ""))
    return found is None or (int(found[1]), int(found[2])) >= wanted


def _on(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "1", "yes", "on")
