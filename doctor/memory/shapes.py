"""Model shapes: the sizes that determine memory, read from a model's config.json. Unknown models raise; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from doctor.errors import DoctorError


class UnknownShape(DoctorError):
    """The model's sizes are not known, so memory cannot be estimated."""


class Vision(msgspec.Struct, frozen=True):
    """A vision tower. `params` includes the projector; `patch` is in pixels; `merge` x `merge` patches become a token."""

    params: float
    hidden: int
    layers: int
    intermediate: int
    patch: int = 14
    merge: int = 2


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a decoder; names shortened from Hugging Face configs.

    - `gated`: three MLP matrices (SwiGLU); otherwise two.
    - `experts`: routed experts per layer (0: dense); `active`: experts per token; `expert_intermediate`: width of an expert.
    - `shared_intermediate`: width of the always-active experts; `dense_layers`: leading layers without experts.
    - `attention_params`: attention parameters per layer if not the usual four projections (multi-head latent attention).
    - `extra_params`: everything else, for example per-layer embeddings.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool = False
    gated: bool = True
    experts: int = 0
    active: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0
    attention_params: int | None = None
    extra_params: float = 0
    attention_bias: bool = False
    softcap: bool = False
    vision: Vision | None = None
    type: str = ""
    quantized: str = ""

    @property
    def q(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of all key (or value) heads."""
        return self.kv_heads * self.head_dim

    @property
    def attention(self) -> int:
        """Linear parameters of attention, per layer."""
        if self.attention_params is not None:
            return self.attention_params
        return self.hidden * (2 * self.q + 2 * self.kv)

    @property
    def matrices(self) -> int:
        """Matrices per MLP."""
        return 3 if self.gated else 2

    @property
    def router(self) -> int:
        """Parameters of the expert router, per layer."""
        return self.hidden * self.experts

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def mlp_width(self) -> int:
        """Summed width of the MLPs a token passes in a layer: the width of its MLP activations."""
        if not self.experts:
            return self.intermediate
        return self.active * self.expert_intermediate + self.shared_intermediate

    @property
    def mlp_params(self) -> int:
        """Linear parameters of the MLPs in a layer; in a mixture of experts, in a layer with experts."""
        if not self.experts:
            return self.matrices * self.hidden * self.intermediate
        return self.matrices * self.hidden * (self.experts * self.expert_intermediate + self.shared_intermediate)

    @property
    def linear(self) -> int:
        """Parameters of the linears in the decoder layers without the router: what k-bit loading quantises."""
        dense = (self.layers - self.moe_layers) * self.matrices * self.hidden * self.intermediate
        return self.layers * self.attention + dense + self.moe_layers * self.mlp_params

    @property
    def expert_params(self) -> int:
        """Parameters of the routed experts of all layers."""
        return self.moe_layers * self.matrices * self.hidden * self.experts * self.expert_intermediate

    @property
    def embedding(self) -> int:
        """Parameters of the input embedding."""
        return self.vocab * self.hidden

    @property
    def head(self) -> int:
        """Parameters of the output head; 0 if tied to the embedding."""
        return 0 if self.tied else self.vocab * self.hidden

    @property
    def small(self) -> float:
        """Parameters of norms, biases, routers and extras: neither linear nor embedding."""
        norms = (2 * self.layers + 1) * self.hidden
        biases = self.layers * (self.q + 2 * self.kv) if self.attention_bias else 0
        return norms + biases + self.moe_layers * self.router + self.extra_params

    @property
    def text_params(self) -> float:
        """Parameters of the language model."""
        return self.linear + self.embedding + self.head + self.small

    @property
    def params(self) -> float:
        """All parameters including the vision tower."""
        return self.text_params + (self.vision.params if self.vision else 0)

    @property
    def largest_linear(self) -> int:
        """Parameters of the largest matrix in a layer."""
        width = max(self.intermediate if self.moe_layers < self.layers else 0, self.expert_intermediate, self.shared_intermediate)
        return self.hidden * max(width, self.q)


def from_config(raw: Mapping[str, Any]) -> Shape:
    """The shape of a Hugging Face config.json. Raises UnknownShape with the missing key."""
    text = next((raw[key] for key in ("text_config", "llm_config", "language_config") if isinstance(raw.get(key), Mapping)), None)
    body: Mapping[str, Any] = {**raw, **text} if isinstance(text, Mapping) else raw
    hidden = _size(body, "hidden_size", "n_embd", "d_model")
    layers = _size(body, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _size(body, "num_attention_heads", "n_head", "n_heads")
    kind = str(body.get("model_type", ""))
    if kind in UNSUPPORTED_TYPES or "linear_attention" in str(body.get("layer_types")):
        raise UnknownShape(f"models of type {kind!r} have layers that are not modelled: cannot estimate memory")
    intermediate = _optional(body, "intermediate_size", "ffn_hidden_size", "n_inner") or 4 * hidden
    if kind == "qwen":
        intermediate //= 2
    shape = Shape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=_kv_heads(body, heads),
        head_dim=_head_dim(body) or hidden // heads,
        intermediate=intermediate,
        vocab=_size(body, "vocab_size", "padded_vocab_size"),
        tied=bool(raw.get("tie_word_embeddings", body.get("tie_word_embeddings", kind in TIED_TYPES))),
        gated=kind not in PLAIN_MLP_TYPES,
        attention_bias=bool(body.get("attention_bias", body.get("use_bias", kind in BIASED_TYPES))),
        attention_params=_latent_attention(body, hidden, heads),
        softcap=body.get("final_logit_softcapping") is not None,
        type=str(raw.get("model_type", kind)),
        quantized=_quantised(raw),
        vision=_vision(raw.get("vision_config")),
    )
    return msgspec.structs.replace(shape, **_experts(body, layers, intermediate))


UNSUPPORTED_TYPES = """
mamba mamba2 jamba falcon_h1 falcon_mamba lfm2 lfm2_moe granitemoehybrid bamba zamba2 qwen3_next rwkv mllama dbrx
""".split()  # noqa: SIM905 (shorter than a list of 14 lines)
"""Model types with state-space, convolution or cross-attention layers, whose activations are not modelled."""

PLAIN_MLP_TYPES = ("phi", "gpt_neox", "gpt_bigcode", "falcon", "bloom", "gpt2", "starcoder2", "opt", "gptj", "nemotron")
"""Model types whose MLP has two matrices (transformers' modeling files)."""


BIASED_TYPES = ("qwen", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl")
"""Model types with biases in q, k and v that their configs do not mention (transformers' modeling files)."""

TIED_TYPES = """
gemma gemma2 gemma3 gemma3_text cohere cohere2 bloom gpt2 gpt_bigcode opt granite starcoder2 falcon minicpm
""".split()  # noqa: SIM905 (shorter than a list of 14 lines)
"""Model types whose config class in transformers defaults to `tie_word_embeddings: true`."""


def _size(raw: Mapping[str, Any], *names: str) -> int:
    found = _optional(raw, *names)
    if found is None:
        raise UnknownShape(f"the model config has none of {', '.join(names)}: cannot estimate memory")
    return found


def _optional(raw: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = raw.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _head_dim(raw: Mapping[str, Any]) -> int | None:
    """Width of a query head, if the config has it; with latent attention the sum of its two parts."""
    latent = _optional(raw, "qk_nope_head_dim")
    return latent + (_optional(raw, "qk_rope_head_dim") or 0) if latent else _optional(raw, "head_dim", "kv_channels")


def _kv_heads(raw: Mapping[str, Any], heads: int) -> int:
    if raw.get("multi_query") is True and raw.get("new_decoder_architecture") is not True:
        return 1
    if raw.get("multi_query_attention") is False:
        return heads
    return _optional(raw, "num_key_value_heads", "multi_query_group_num", "num_kv_heads") or heads


def _latent_attention(raw: Mapping[str, Any], hidden: int, heads: int) -> int | None:
    """Parameters of DeepSeek's multi-head latent attention (DeepSeek-V2 report, section 2.1; modeling_deepseek_v2.py)."""
    rank = _optional(raw, "kv_lora_rank")
    if rank is None:
        return None
    nope, rope, value = (_size(raw, name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    q_rank = _optional(raw, "q_lora_rank")
    query = hidden * heads * (nope + rope) if q_rank is None else q_rank * (hidden + heads * (nope + rope))
    return query + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def _experts(raw: Mapping[str, Any], layers: int, intermediate: int) -> dict[str, int]:
    experts = _optional(raw, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if experts is None or experts == 1:
        return {}
    width = _optional(raw, "moe_intermediate_size") or intermediate
    shared = _optional(raw, "shared_expert_intermediate_size", "shared_intermediate_size") or 0
    count = raw.get("n_shared_experts") or raw.get("num_shared_experts")
    if isinstance(count, int) and not shared:
        shared = count * width
    return {
        "experts": experts,
        "active": _optional(raw, "num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token") or 1,
        "expert_intermediate": width,
        "shared_intermediate": shared,
        "dense_layers": min(layers, _optional(raw, "first_k_dense_replace") or 0),
    }


def _vision(raw: Any) -> Vision | None:
    """The vision tower of a config: attention and MLP per block, patch embedding, and a two-layer projector."""
    if not isinstance(raw, Mapping):
        return None
    hidden, layers = _optional(raw, "hidden_size", "embed_dim", "width"), _optional(raw, "num_hidden_layers", "depth", "layers")
    if hidden is None or layers is None:
        return None
    hidden = _optional(raw, "embed_dim") or hidden
    intermediate = _optional(raw, "intermediate_size") or 4 * hidden
    gated = raw.get("hidden_act") == "silu"
    block = 4 * hidden * hidden + (3 if gated else 2) * hidden * intermediate
    patch, merge = _optional(raw, "patch_size") or 14, _optional(raw, "spatial_merge_size") or 1
    projector = (merge * merge * hidden) ** 2 + merge * merge * hidden * (_optional(raw, "out_hidden_size") or hidden)
    return Vision(layers * block + 3 * patch * patch * hidden + projector, hidden, layers, intermediate, patch, merge)


def _quantised(raw: Mapping[str, Any]) -> str:
    settings = raw.get("quantization_config")
    if not isinstance(settings, Mapping):
        return ""
    method = str(settings.get("quant_method", "")).lower()
    if method == "bitsandbytes":
        return "nf4" if settings.get("load_in_4bit") else "int8"
    bits = settings.get("bits", 4)
    return f"{method}{bits}" if method in ("gptq", "awq") else method
