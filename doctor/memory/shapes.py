"""Model shapes: the sizes that determine memory."""

from __future__ import annotations

from typing import Literal

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


class Mixer(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that mix tokens without attention, or beside it (Falcon-H1).

    - `kind`: delta_net (Qwen3-Next, Qwen3.5), mamba2 (Granite 4, Falcon-H1, Nemotron-H) or conv (LFM2).
    - `layers`: how many layers have it.
    - `into`: output widths of the projections into it; `inner`: input width of the projection out of it.
    - `small`: parameters of its convolution, decay and norm, per layer.
    """

    kind: Literal["delta_net", "mamba2", "conv"]
    layers: int
    into: tuple[int, ...]
    inner: int
    small: int = 0

    @property
    def wide(self) -> int:
        """Width of everything that is projected into it."""
        return sum(self.into)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a decoder; names shortened from Hugging Face configs.

    - `gated`: three MLP matrices (SwiGLU); otherwise two.
    - `experts`: routed experts per layer (0: dense); `active`: experts per token; `expert_intermediate`: width of an expert.
    - `shared_intermediate`: width of the always-active experts; `dense_layers`: layers with an MLP without experts.
    - `attention_params`: attention parameters per layer if not the usual four projections (multi-head latent attention), the mean
      where layers differ (Gemma 4, Step-3.5).
    - `gated_attention`: the query projection also yields a gate for the output, as wide as the query.
    - `mixer`, `attention_layers`, `mlp_layers`: what the layers of a hybrid are; None: all have attention, all have an MLP.
    - `streams`: parallel residual streams (AltUp of Gemma 3n).
    - `extra_params`: everything else, for example per-layer embeddings.
    - `other_towers`: parameters of frozen towers besides `vision`.
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
    gated_attention: bool = False
    mixer: Mixer | None = None
    attention_layers: int | None = None
    mlp_layers: int | None = None
    streams: int = 1
    extra_params: float = 0
    other_towers: float = 0
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
        return self.hidden * ((3 if self.gated_attention else 2) * self.q + 2 * self.kv)

    @property
    def attending(self) -> int:
        """Layers with attention."""
        return self.layers if self.attention_layers is None else self.attention_layers

    @property
    def feeding(self) -> int:
        """Layers with an MLP."""
        return self.layers if self.mlp_layers is None else self.mlp_layers

    @property
    def mixing(self) -> int:
        """Linear parameters of the mixers of all layers."""
        return self.mixer.layers * self.hidden * (self.mixer.wide + self.mixer.inner) if self.mixer else 0

    @property
    def kinds(self) -> tuple[tuple[int, Shape], ...]:
        """(How many, a shape all of whose layers are of that kind) for each kind of layer in a hybrid."""
        if self.mixer is None or self.attending == self.mixer.layers == self.layers:
            return ((self.layers, self),)
        alone = self.attending + self.mixer.layers + self.feeding == self.layers
        plain = msgspec.structs.replace(self, mixer=None, attention_layers=None, mlp_layers=0 if alone else None)
        mixer = msgspec.structs.replace(self.mixer, layers=self.layers)
        found = [(self.attending, plain), (self.mixer.layers, msgspec.structs.replace(plain, attention_layers=0, mixer=mixer))]
        if alone:
            found.append((self.feeding, msgspec.structs.replace(plain, attention_layers=0, mlp_layers=None)))
        return tuple((count, kind) for count, kind in found if count)

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
        return self.feeding - self.dense_layers if self.experts else 0

    @property
    def mlp_width(self) -> int:
        """Summed width of the MLPs a token passes in a layer: the width of its MLP activations."""
        if not self.feeding:
            return 0
        if not self.experts:
            return self.intermediate
        return self.active * self.expert_intermediate + self.shared_intermediate

    @property
    def mlp_params(self) -> int:
        """Linear parameters of the MLPs in a layer; in a mixture of experts, in a layer with experts."""
        if not self.feeding:
            return 0
        if not self.experts:
            return self.matrices * self.hidden * self.intermediate
        return self.matrices * self.hidden * (self.experts * self.expert_intermediate + self.shared_intermediate)

    @property
    def linear(self) -> int:
        """Parameters of the linears in the decoder layers without the router: what k-bit loading quantises."""
        dense = (self.feeding - self.moe_layers) * self.matrices * self.hidden * self.intermediate
        moe = self.moe_layers * self.mlp_params if self.experts else 0
        return self.attending * self.attention + self.mixing + dense + moe

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
        mixers = self.mixer.layers if self.mixer else 0
        norms = (min(self.layers, self.attending + mixers) + self.feeding + 1) * self.hidden
        biases = self.attending * (self.q + 2 * self.kv) if self.attention_bias else 0
        mixed = self.mixer.layers * self.mixer.small if self.mixer else 0
        return norms + biases + mixed + self.moe_layers * self.router + self.extra_params

    @property
    def text_params(self) -> float:
        """Parameters of the language model."""
        return self.linear + self.embedding + self.head + self.small

    @property
    def tower_params(self) -> float:
        """Parameters of all towers."""
        return (self.vision.params if self.vision else 0) + self.other_towers

    @property
    def params(self) -> float:
        """All parameters including the towers."""
        return self.text_params + self.tower_params

    @property
    def largest_linear(self) -> int:
        """Parameters of the largest matrix in a layer."""
        dense = self.intermediate if self.moe_layers < self.feeding else 0
        mixer = max(*self.mixer.into, self.mixer.inner) if self.mixer else 0
        query = self.q * (2 if self.gated_attention else 1)
        return self.hidden * max(dense, self.expert_intermediate, self.shared_intermediate, mixer, query)
