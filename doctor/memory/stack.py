"""Which kernels, attention and losses the installed packages use for a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from doctor.config import versions
from doctor.config.values import is_true
from doctor.memory.shapes import Shape

Loss = Literal["plain", "liger", "fused", "unsloth", "litgpt", "torchtune"]
Kernels = Literal["plain", "liger", "foak"]
"""liger: fused norms, rotary embedding and MLP; foak: fused norms and rotary embedding only (fms-acceleration, Unsloth)."""

LIGER_TYPES = """
gemma gemma2 gemma3 gemma3_text glm glm4 glm4v granite llama llava mistral mixtral mllama olmo2 paligemma phi3
qwen2 qwen2_vl qwen2_5_vl qwen3 qwen3_moe qwen3_next qwen3_5 gpt_oss
""".split()  # noqa: SIM905 (a list of 24 lines says no more)
"""Model types that LLaMA-Factory 0.9.5 gives to Liger (model_utils/liger_kernel.py); for others the option does nothing."""

NAMED_LOSSES: dict[str, tuple[Loss, Kernels]] = {
    "foak-ce": ("fused", "foak"),
    "liger": ("liger", "foak"),
    "unsloth": ("unsloth", "foak"),
    "litgpt128": ("litgpt", "plain"),
    "torchtune-chunked": ("torchtune", "plain"),
}
"""The fact `chunked_loss` of published measurements -> (loss, kernels)."""


def copies_logits_in_fp32(facts: Mapping[str, Any]) -> bool:
    """Whether the loss shifts a float32 copy of the logits: 4 more bytes a logit in transformers 4.46 to 4.48 (loss/loss_utils.py)."""
    if "446_448" in str(facts.get("stack") or ""):
        return True
    return (4, 46) <= versions.reported(facts, "transformers")[:2] < (4, 49)


def packs_experts(facts: Mapping[str, Any]) -> bool:
    """Whether a layer's experts are one three-dimensional parameter: transformers from 5.0 on (modeling_qwen3_moe.py).

    Neither bitsandbytes nor adapters on linears reach them then. An unknown version is taken as that of LLaMA-Factory 0.9.5.
    """
    version = versions.reported(facts, "transformers")
    return version >= (5, 0) if version else not facts.get("stack")


def attention(config: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """eager, sdpa or fa2 (FlashAttention-2 or 3, which keep the same tensors); sdpa by default."""
    name = str(facts.get("attention") or config.get("flash_attn") or "sdpa").lower()
    if name in ("eager", "disabled", "off", "manual"):
        return "eager"
    return "fa2" if name.startswith(("fa2", "fa3", "flash")) else "sdpa"


def loss_and_kernels(config: Mapping[str, Any], facts: Mapping[str, Any], stage: str, shape: Shape) -> tuple[Loss, Kernels]:
    """The loss in use, and which of a layer's kernels are fused."""
    measured = str(facts.get("chunked_loss") or "none").lower()
    if measured in NAMED_LOSSES:
        return NAMED_LOSSES[measured]
    if str(facts.get("stack") or "").startswith("litgpt"):
        return "litgpt", "plain"
    if is_true(config.get("use_unsloth")):
        return "unsloth", "foak"
    if not is_true(config.get("enable_liger_kernel")) or (shape.type and shape.type not in LIGER_TYPES):
        return "plain", "plain"
    return ("liger" if stage in ("pt", "sft") else "plain"), "liger"
