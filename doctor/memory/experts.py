"""The experts in a config.json: how many, how wide, and in which layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctor.memory.keys import given_or_none, most
from doctor.memory.shapes import Shape

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def experts_of(raw: Mapping[str, Any], shape: Shape) -> dict[str, int]:
    """The fields of Shape about experts; empty for a dense model."""
    experts = given_or_none(raw, *EXPERT_COUNTS)
    if experts is None or experts == 1 or raw.get("enable_moe_block") is False:
        return _shared_only(raw)
    width = most(raw, "moe_intermediate_size") or shape.intermediate
    fields = {
        "experts": experts,
        "active": most(raw, "num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k", "num_experts_per_token", "top_k_experts") or 1,
        "expert_intermediate": width,
        "shared_intermediate": _shared(raw, width, shape),
        "dense_layers": _dense_layers(raw, shape),
    }
    dense = given_or_none(raw, "intermediate_size_mlp")
    return {**fields, "intermediate": dense} if dense else fields


def _shared_only(raw: Mapping[str, Any]) -> dict[str, int]:
    """Dense Granite 4: without experts the shared MLP is the only one."""
    width = given_or_none(raw, "shared_intermediate_size")
    return {"intermediate": width} if width and raw.get("model_type") == "granitemoehybrid" else {}


def _shared(raw: Mapping[str, Any], width: int, shape: Shape) -> int:
    """Width of what every token passes beside its experts: shared experts, or the dense MLP of Gemma 4."""
    total = given_or_none(raw, "shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim")
    if total:
        return total
    if raw.get("enable_moe_block") is True or "interleave_moe_layer_step" in raw:  # Gemma 4, Llama 4
        return shape.intermediate
    one = given_or_none(raw, "moe_shared_expert_intermediate_size") or width
    return one * (most(raw, "n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts") or 0)


def _dense_layers(raw: Mapping[str, Any], shape: Shape) -> int:
    """Layers with a plain MLP."""
    listed, step = raw.get("moe_layers_enum"), given_or_none(raw, "interleave_moe_layer_step")
    if isinstance(listed, str) and listed:
        return max(0, shape.layers - len(set(listed.split(","))))
    if step:
        return shape.layers - shape.layers // step
    plain = shape.mlp_layers if shape.mlp_layers is not None else shape.layers
    if raw.get("model_type") == "nemotron_h":
        return plain
    return min(plain, given_or_none(raw, "first_k_dense_replace", "moe_layer_start_index", "num_dense_layers") or 0)
