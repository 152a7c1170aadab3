"""The layers of a hybrid in a config.json: which have attention, and what the others have instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctor.memory.keys import given_or_none, size
from doctor.memory.shapes import Mixer, Shape, UnknownShape

DELTA_NET = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
"""Model types with gated delta net layers (modeling_qwen3_next.py, modeling_qwen3_5.py)."""

ATTENTION_NAMES = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention", "*"})
"""Words of `layer_types` and letters of `hybrid_override_pattern` that mean attention."""


def layers_of(body: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """The fields `mixer`, `attention_layers` and `mlp_layers`; empty where every layer has attention and an MLP. Raises UnknownShape."""
    kind = str(body.get("model_type", ""))
    if kind == "falcon_h1":
        return {"mixer": _mamba(body, shape, shape.layers)}
    if kind == "nemotron_h":
        return _nemotron(body, shape)
    listed = body.get("layer_types")
    named = [str(name) for name in listed] if isinstance(listed, list) else []
    attending = sum(name in ATTENTION_NAMES for name in named[: shape.layers]) if named else _attending(body, kind, shape)
    others = shape.layers - attending
    if others == 0:
        return {}
    return {"mixer": _mixer(body, kind, shape, others), "attention_layers": attending}


def _mixer(body: Mapping[str, Any], kind: str, shape: Shape, layers: int) -> Mixer:
    if kind in DELTA_NET:
        return _delta_net(body, layers)
    if kind == "granitemoehybrid":
        return _mamba(body, shape, layers)
    if kind in ("lfm2", "lfm2_moe"):
        return _short_conv(body, shape, layers)
    raise UnknownShape(f"models of type {kind!r} have layers that are not modelled: cannot estimate memory")


def _attending(body: Mapping[str, Any], kind: str, shape: Shape) -> int:
    """Layers with attention where the config does not list its layers."""
    if kind in DELTA_NET:
        return shape.layers // (given_or_none(body, "full_attention_interval") or 4)
    if isinstance(body.get("full_attn_idxs"), list):
        return len(body["full_attn_idxs"])
    if kind in ("lfm2", "lfm2_moe", "granitemoehybrid"):
        raise UnknownShape(f"this config of type {kind!r} does not list its layers: cannot estimate memory")
    return shape.layers


def pattern(body: Mapping[str, Any]) -> str:
    """Nemotron-H's layers, a letter each: M mamba, * attention, - MLP, E experts. Empty for other models."""
    text = body.get("hybrid_override_pattern")
    if isinstance(text, str):
        return text
    letters = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
    names = body.get("layers_block_type") if body.get("model_type") == "nemotron_h" else None
    return "".join(letters.get(str(name), "?") for name in names) if isinstance(names, list) else ""


def _nemotron(body: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    letters = pattern(body)
    if not letters or set(letters) - set("M*-E") or body.get("moe_latent_size") is not None or ("E" in letters and "-" in letters):
        raise UnknownShape("this nemotron_h config has layers that are not modelled: cannot estimate memory")
    feeding = letters.count("-") + letters.count("E")
    return {"mixer": _mamba(body, shape, letters.count("M")), "attention_layers": letters.count("*"), "mlp_layers": feeding}


def _delta_net(body: Mapping[str, Any], layers: int) -> Mixer:
    """Projections: q, k, v and the gate z, a decay and a beta per value head; a convolution over q, k and v."""
    key = size(body, "linear_num_key_heads") * size(body, "linear_key_head_dim")
    heads, width = size(body, "linear_num_value_heads"), size(body, "linear_value_head_dim")
    value = heads * width
    small = (2 * key + value) * (given_or_none(body, "linear_conv_kernel_dim") or 4) + 2 * heads + width
    joined = body.get("model_type") == "qwen3_next"  # Qwen3-Next projects in two linears, Qwen3.5 in four
    into = (2 * key + 2 * value, 2 * heads) if joined else (2 * key + value, value, heads, heads)
    return Mixer(kind="delta_net", layers=layers, into=into, inner=value, small=small)


def _mamba(body: Mapping[str, Any], shape: Shape, layers: int) -> Mixer:
    """Mamba-2 (modeling_bamba.py, modeling_nemotron_h.py): one projection to gate, input, B, C and a step per head."""
    heads = size(body, "mamba_n_heads", "mamba_num_heads")
    inner = given_or_none(body, "mamba_d_ssm") or _mamba_width(body, heads, shape)
    state = (given_or_none(body, "mamba_n_groups", "n_groups") or 1) * size(body, "mamba_d_state", "ssm_state_size")
    kernel = given_or_none(body, "mamba_d_conv", "conv_kernel") or 4
    small = (inner + 2 * state) * (kernel + 1) + 3 * heads + inner
    return Mixer(kind="mamba2", layers=layers, into=(2 * inner + 2 * state + heads,), inner=inner, small=small)


def _mamba_width(body: Mapping[str, Any], heads: int, shape: Shape) -> int:
    head = given_or_none(body, "mamba_d_head", "mamba_head_dim")
    return heads * head if head else (given_or_none(body, "mamba_expand", "expand") or 2) * shape.hidden


def _short_conv(body: Mapping[str, Any], shape: Shape, layers: int) -> Mixer:
    """LFM2 (modeling_lfm2.py): two gates and an input, a convolution of `conv_L_cache` taps."""
    inner = given_or_none(body, "conv_dim") or shape.hidden
    return Mixer(kind="conv", layers=layers, into=(3 * inner,), inner=inner, small=inner * (given_or_none(body, "conv_L_cache") or 3))
