"""A model's config.json -> its shape. What has no size or an unknown kind of layer raises; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from doctor.memory import mixers, towers
from doctor.memory.experts import experts_of
from doctor.memory.keys import given_or_none, most, size
from doctor.memory.shapes import Shape, UnknownShape

TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Keys under which a multimodal model's config.json keeps its language model; Qwen's Omni models nest two of them."""

UNSUPPORTED_TYPES = """
mamba mamba2 jamba falcon_mamba bamba zamba zamba2 rwkv rwkv7 recurrent_gemma dbrx kimi_linear minimax bailing_hybrid longcat_flash
deepseek_v4
""".split()  # noqa: SIM905 (shorter than a list of 16 lines)
"""Model types with layers that the shape cannot express."""

PLAIN_MLP_TYPES = """
phi gpt_neox gpt_bigcode falcon bloom gpt2 starcoder2 opt gptj nemotron nemotron_h apertus
""".split()  # noqa: SIM905 (shorter than a list of 12 lines)
"""Model types whose MLP has two matrices (transformers' modeling files)."""

BIASED_TYPES = ("qwen", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_5_omni_text")
"""Model types with biases in q, k and v that their configs do not mention (transformers' modeling files)."""

TIED_TYPES = """
gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text cohere cohere2 bloom gpt2
gpt_bigcode opt granite starcoder2 falcon minicpm lfm2 ernie4_5 ernie4_5_moe
""".split()  # noqa: SIM905 (shorter than a list of 20 lines)
"""Model types whose config class in transformers defaults to `tie_word_embeddings: true`."""


def from_config(raw: Mapping[str, Any]) -> Shape:
    """The shape of a Hugging Face config.json. Raises UnknownShape with the missing key."""
    body = _language_model(raw)
    kind = str(body.get("model_type", ""))
    if kind in UNSUPPORTED_TYPES:
        raise UnknownShape(f"models of type {kind!r} have layers that are not modelled: cannot estimate memory")
    hidden = size(body, "hidden_size", "n_embd", "d_model")
    layers = len(mixers.pattern(body)) or size(body, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = size(body, "num_attention_heads", "n_head", "n_heads")
    shape = Shape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=_kv_heads(body, heads),
        head_dim=_head_dim(body) or hidden // heads,
        intermediate=_intermediate(body, kind, hidden),
        vocab=size(body, "vocab_size", "padded_vocab_size"),
        tied=_tied(raw, body, kind),
        gated=kind not in PLAIN_MLP_TYPES,
        attention_bias=bool(body.get("attention_bias", body.get("use_bias", kind in BIASED_TYPES))),
        gated_attention=body.get("attn_output_gate", kind == "qwen3_next") is True,
        softcap=body.get("final_logit_softcapping") is not None,
        type=str(raw.get("model_type", kind)),
        quantized=_quantised(raw),
        vision=towers.vision(raw),
        other_towers=towers.audio(raw),
    )
    shape = msgspec.structs.replace(shape, attention_params=_attention_params(body, shape), **_per_layer(body, kind, shape))
    return msgspec.structs.replace(shape, **mixers.layers_of(body, shape), **experts_of(body, shape))


def _language_model(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The whole config with the language model's own values on top."""
    text = next((raw[key] for key in TEXT_CONFIGS if isinstance(raw.get(key), Mapping)), None)
    if text is None:
        return raw
    return {**{key: value for key, value in raw.items() if key not in TEXT_CONFIGS}, **_language_model(text)}


def _tied(raw: Mapping[str, Any], body: Mapping[str, Any], kind: str) -> bool:
    """Whether head and embedding are one matrix. A multimodal model's outer value decides where it is set (PreTrainedModel.tie_weights)."""
    for holder in (raw, body):
        for key in ("tie_word_embeddings", "tie_embedding"):
            if key in holder:
                return bool(holder[key])
    return kind in TIED_TYPES


def _intermediate(body: Mapping[str, Any], kind: str, hidden: int) -> int:
    found = most(body, "intermediate_size", "ffn_hidden_size", "n_inner", "block_ff_dim") or 4 * hidden
    if kind == "qwen":
        return found // 2
    if kind == "lfm2" and body.get("block_auto_adjust_ff_dim", True) is True:
        multiple = given_or_none(body, "block_multiple_of") or 256
        return -(-(2 * found // 3) // multiple) * multiple
    return found


def _head_dim(raw: Mapping[str, Any]) -> int | None:
    """Width of a query head, if the config has it; with latent attention the sum of its two parts."""
    latent = given_or_none(raw, "qk_nope_head_dim")
    return (
        latent + (given_or_none(raw, "qk_rope_head_dim") or 0)
        if latent
        else given_or_none(raw, "head_dim", "kv_channels", "attention_head_dim")
    )


def _kv_heads(raw: Mapping[str, Any], heads: int) -> int:
    if raw.get("multi_query") is True and raw.get("new_decoder_architecture") is not True:
        return 1
    if raw.get("multi_query_attention") is False:
        return heads
    return given_or_none(raw, "num_key_value_heads", "multi_query_group_num", "num_kv_heads", "num_attention_groups") or heads


def _attention_params(body: Mapping[str, Any], shape: Shape) -> int | None:
    latent = _latent_attention(body, shape.hidden, shape.heads)
    return latent if latent is not None else _unequal_attention(body, shape)


def _latent_attention(raw: Mapping[str, Any], hidden: int, heads: int) -> int | None:
    """Parameters of DeepSeek's multi-head latent attention (DeepSeek-V2 report, section 2.1; modeling_deepseek_v2.py).

    With the indexer of sparse attention (DeepSeek-V3.2, GLM-5; modeling_glm_moe_dsa.py): a query from the compressed query, a key and
    a weight per index head from the hidden state.
    """
    rank = given_or_none(raw, "kv_lora_rank")
    if rank is None:
        return None
    nope, rope, value = (size(raw, name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    q_rank = given_or_none(raw, "q_lora_rank")
    query = hidden * heads * (nope + rope) if q_rank is None else q_rank * (hidden + heads * (nope + rope))
    index_heads, index_dim = given_or_none(raw, "index_n_heads") or 0, given_or_none(raw, "index_head_dim") or 0
    indexer = (q_rank or 0) * index_heads * index_dim + hidden * (index_dim + index_heads)
    return query + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden + indexer


def _unequal_attention(body: Mapping[str, Any], shape: Shape) -> int | None:
    """Mean parameters of attention where layers differ in heads (Gemma 3n and 4, Step-3.5); None where they do not."""
    shared = given_or_none(body, "num_kv_shared_layers") or 0
    if not (shared or given_or_none(body, "global_head_dim") or isinstance(body.get("attention_other_setting"), Mapping)):
        return None
    listed = body.get("layer_types")
    sixth = ["sliding_attention"] * 5 + ["full_attention"]  # Gemma's default
    kinds = ([str(kind) for kind in listed] if isinstance(listed, list) else sixth * shape.layers)[: shape.layers]
    own = shape.layers - shared
    total = sum(_attention_of(body, shape, full=kind == "full_attention", keys=index < own) for index, kind in enumerate(kinds))
    return total // shape.layers


def _attention_of(body: Mapping[str, Any], shape: Shape, *, full: bool, keys: bool) -> int:
    """Parameters of attention in one layer.

    - Gemma 4 (modeling_gemma4.py): full layers have wider heads, and where keys serve as values fewer of them; the last
      `num_kv_shared_layers` have neither keys nor values. Gemma 3n shares the same way.
    - Step-3.5 (configuration_step35.py): sliding layers have more heads for queries, and a gate per head.
    """
    heads, kv, width, parts = shape.heads, shape.kv_heads, shape.head_dim, 2
    if full:
        width = given_or_none(body, "global_head_dim") or width
        if body.get("attention_k_eq_v") is True:
            kv, parts = given_or_none(body, "num_global_key_value_heads") or kv, 1
    elif isinstance(other := body.get("attention_other_setting"), Mapping):
        heads = given_or_none(other, "num_attention_heads") or heads
    gate = heads if body.get("use_head_wise_attn_gate") is True else 0
    return shape.hidden * (width * (2 * heads + (parts * kv if keys else 0)) + gate)


def _per_layer(body: Mapping[str, Any], kind: str, shape: Shape) -> dict[str, float]:
    """Gemma's per-layer embeddings, Gemma 3n's AltUp and LAUREL (modeling_gemma3n.py)."""
    width = given_or_none(body, "hidden_size_per_layer_input")
    if width is None or not kind.startswith(("gemma3n", "gemma4")):
        return {}
    rows = given_or_none(body, "vocab_size_per_layer_input") or shape.vocab
    extra = rows * shape.layers * width + shape.hidden * shape.layers * width + shape.layers * 2 * shape.hidden * width
    streams = given_or_none(body, "altup_num_inputs") or 1
    if streams > 1:
        extra += 2 * (streams - 1) * shape.hidden**2 + shape.layers * 2 * shape.hidden * (given_or_none(body, "laurel_rank") or 0)
    return {"extra_params": extra, "streams": streams}


def _quantised(raw: Mapping[str, Any]) -> str:
    settings = raw.get("quantization_config")
    if not isinstance(settings, Mapping):
        return ""
    method = str(settings.get("quant_method", "")).lower()
    if method == "bitsandbytes":
        return "nf4" if settings.get("load_in_4bit") else "int8"
    bits = settings.get("bits", 4)
    return f"{method}{bits}" if method in ("gptq", "awq") else method
