"""Memory that does not depend on the batch: weights, adapters, gradients, optimizer states, buffers of DDP, FSDP and DeepSpeed.

Every function returns bytes per GPU. Element counts come from `Shape`, dtypes and sharding from `Setup`.
"""

from __future__ import annotations

import msgspec

from doctor.memory.setup import Setup
from doctor.memory.shapes import Shape

BYTES_PER_LINEAR = {
    "nf4": 0.5 + 1 / 64 + 4 / (64 * 256),
    "nf4 single": 0.5 + 4 / 64,
    "int8": 1.02,
    "gptq4": 0.5 + 2.5 / 128,
    "gptq8": 1 + 2.5 / 128,
    "awq4": 0.5 + 2.5 / 128,
    "hqq8": 1 + 4 / 64,
    "hqq4": 0.5 + 4 / 64,
    "hqq3": 0.4 + 4 / 64,
    "hqq2": 0.25 + 4 / 64,
    "hqq1": 0.125 + 4 / 64,
    "eetq8": 1.02,
    "aqlm": 0.26,
}
"""Bytes per quantised parameter: codes and scales.

- nf4 with double quantisation: 4 bits, an 8-bit scale per 64 values, a float32 per 256 scales (QLoRA, arXiv 2305.14314, section 3).
- int8: 8 bits, a float32 scale per row.
- GPTQ, AWQ: 4 or 8 bits, a 16-bit scale and a packed zero point per group of 128.
- HQQ: a 16-bit scale and zero point per group of 64.
"""


FUSED_QKV_TYPES = """
phi3 phi4mm phi4_multimodal chatglm baichuan qwen internlm2 falcon gpt_neox bloom gpt2 gpt_bigcode bailing_moe
""".split()  # noqa: SIM905
"""Model types with a single linear for q, k and v (transformers' modeling files); `lora_target: all` gives it a single adapter."""

FUSED_GATE_UP_TYPES = "phi3 phi4mm phi4_multimodal glm glm4 glm4v chatglm granitemoehybrid".split()  # noqa: SIM905
"""The same for gate and up."""


class Trained:
    """Number of trained parameters.

    - `adapter`: low-rank matrices.
    - `copies`: trained copies of embedding and head (`additional_target`).
    - `own`: the model's own weights (full, freeze).
    """

    def __init__(self, setup: Setup, shape: Shape) -> None:
        self.adapter = 0.0 if setup.full else adapter_params(setup, shape)
        self.copies = 0.0 if setup.full else _copied_params(setup, shape)
        self.own = _own_params(setup, shape) if setup.full else 0.0

    @property
    def total(self) -> float:
        """All trained parameters."""
        return self.adapter + self.copies + self.own


def adapted_linears(setup: Setup, shape: Shape) -> list[tuple[int, int, int]]:
    """(input width, output width, count per layer) of every linear that gets an adapter, in a shape whose layers are all of one kind."""
    h, q, kv = shape.hidden, shape.q, shape.kv
    into, out = _mixer_linears(shape)
    attention = {"q_proj": [(h, q * (2 if shape.gated_attention else 1), 1)], "k_proj": [(h, kv, 1)], "v_proj": [(h, kv, 1)]}
    attention["o_proj"] = [(q, h, 1)]
    if not shape.attending:
        attention = {name: [] for name in attention}
    wide, narrow = _mlp_linears(setup, shape)
    mlp = {"gate_proj": wide if shape.gated else [], "up_proj": wide, "down_proj": narrow}
    every = {**attention, **mlp}
    merged = {
        "qkv_proj": [(h, q + 2 * kv, 1)] if shape.attending else [],
        "gate_up_proj": [(i, 2 * o, n) for i, o, n in wide],
        "dense": attention["o_proj"],
        "wo": attention["o_proj"],
        "out_proj": attention["o_proj"] + out,
        "in_proj": into,
        "mlp": mlp["gate_proj"] + mlp["up_proj"] + mlp["down_proj"],
        "w1": wide,
        "w3": wide,
        "w2": wide if shape.type == "qwen" else narrow,
        "c_proj": attention["o_proj"] + narrow,
        "fc1": wide,
        "fc2": narrow,
        "dense_h_to_4h": wide,
        "dense_4h_to_h": narrow,
    }
    merged |= dict.fromkeys(("c_attn", "query_key_value", "W_pack", "wqkv", "Wqkv"), merged["qkv_proj"])
    if setup.lora_targets[0].startswith("all"):
        inward = (
            merged["qkv_proj"]
            if shape.type in FUSED_QKV_TYPES
            else [linear for name in ("q_proj", "k_proj", "v_proj") for linear in every[name]]
        )
        upward = merged["gate_up_proj"] if shape.type in FUSED_GATE_UP_TYPES else mlp["gate_proj"] + mlp["up_proj"]
        return [*inward, *attention["o_proj"], *into, *out, *upward, *mlp["down_proj"]]
    known = {**every, **merged, **_delta_net_names(into)}
    return [linear for name in setup.lora_targets for linear in known.get(name.rpartition(".")[2], [])]


def _mixer_linears(shape: Shape) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """The linears into and out of a hybrid's mixer."""
    if shape.mixer is None:
        return [], []
    return [(shape.hidden, width, 1) for width in shape.mixer.into], [(shape.mixer.inner, shape.hidden, 1)]


def _delta_net_names(into: list[tuple[int, int, int]]) -> dict[str, list[tuple[int, int, int]]]:
    """The projections of Qwen3-Next (two) and Qwen3.5 (four) by name (modeling_qwen3_next.py, modeling_qwen3_5.py)."""
    names = {2: ("in_proj_qkvz", "in_proj_ba"), 4: ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")}.get(len(into), ())
    return {name: [linear] for name, linear in zip(names, into, strict=True)} if names else {}


def _mlp_linears(setup: Setup, shape: Shape) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """The linears into and out of the MLP, experts included."""
    h = shape.hidden
    if not shape.feeding:
        return [], []
    if not shape.experts:
        return [(h, shape.intermediate, 1)], [(shape.intermediate, h, 1)]
    routed = [] if setup.packed_experts else [(shape.expert_intermediate, shape.experts)]
    widths = routed + ([(shape.shared_intermediate, 1)] if shape.shared_intermediate else [])
    return [(h, width, count) for width, count in widths], [(width, h, count) for width, count in widths]


def adapter_params(setup: Setup, shape: Shape) -> float:
    """Parameters of all LoRA matrices: rank * (inputs + outputs) per adapted linear. DoRA adds a magnitude per output."""
    head = setup.lora_rank * (shape.hidden + shape.vocab) if setup.lora_targets[0].endswith("head") else 0
    return head + sum(layers * _adapter_params_of_layer(setup, kind) for layers, kind in shape.kinds)


def _adapter_params_of_layer(setup: Setup, kind: Shape) -> float:
    linears = adapted_linears(setup, kind)
    return sum(count * (setup.lora_rank * (i + o) + (o if setup.dora else 0)) for i, o, count in linears)


def _copied_params(setup: Setup, shape: Shape) -> float:
    names = " ".join(setup.additional_targets)
    embedding = shape.embedding if any(word in names for word in ("embed", "wte")) else 0
    head = shape.embedding if "head" in names else 0
    return embedding + (head if head and not (shape.tied and embedding) else 0)


def _own_params(setup: Setup, shape: Shape) -> float:
    if setup.method == "full":
        return shape.text_params
    return setup.trainable_layers * (shape.text_params - shape.embedding - shape.head) / shape.layers


def quantised_weights(shape: Shape, quantized: str, embedding_bytes: int, *, double_quant: bool = True, packed: bool = False) -> float:
    """Bytes of a loaded model: linears of the layers at the quantised width; embedding, head and norms at `embedding_bytes`.

    `packed`: the experts are 3-D parameters, not linears, so quantisation at load time leaves them at 16 bits.
    """
    width = BYTES_PER_LINEAR.get("nf4 single" if quantized == "nf4" and not double_quant else quantized, 2.0)
    towers = shape.tower_params * width
    skipped = shape.expert_params if packed and not quantized.startswith(("gptq", "awq")) else 0
    return (shape.linear - skipped) * width + 2 * skipped + (shape.embedding + shape.head + shape.small) * embedding_bytes + towers


def weights(setup: Setup, shape: Shape, trained: Trained) -> float:
    """The model's own weights. In full tuning with autocast LLaMA-Factory casts trained weights to float32 (model/adapter.py)."""
    if setup.quantized:
        whole = quantised_weights(
            shape, setup.quantized, setup.embedding_bytes, double_quant=setup.double_quant, packed=setup.packed_experts
        )
        if setup.stack.startswith("litgpt"):  # litgpt quantises the head too
            whole -= shape.head * (setup.embedding_bytes - BYTES_PER_LINEAR["nf4"])
        return _sharded(whole, setup)
    if setup.full:
        frozen = shape.params - trained.own
        return _sharded(trained.own * setup.master_bytes + frozen * 2, setup)
    plain = (shape.params - shape.embedding - shape.head - shape.small) * 2
    return _sharded(plain + (shape.embedding + shape.head + shape.small) * setup.embedding_bytes, setup)


def _sharded(whole: float, setup: Setup) -> float:
    if not setup.sharded_params:
        return whole
    offloaded = setup.zero.offload_params or (setup.offload and setup.sharding in ("fsdp", "zero3"))
    return 0.0 if offloaded else whole / setup.world_size


def adapters(setup: Setup, trained: Trained) -> float:
    """LoRA matrices and trained copies: float32 in LLaMA-Factory unless pure_bf16; 16 bits in DeepSpeed's mixed precision."""
    width = 2 if setup.zero_stage else setup.adapter_bytes
    whole = (trained.adapter + trained.copies) * width
    return whole / (setup.world_size if setup.sharded_params else 1)


def gradients(setup: Setup, shape: Shape, trained: Trained) -> float:
    """Gradients during the optimizer step. ZeRO-1/2 add a float32 copy of the rank's partition (DeepSpeed, stage_1_and_2.py)."""
    if setup.optimizer.gradients == 0:
        return float(max(shape.largest_linear, shape.embedding)) * _width(setup)
    count = _block(shape, trained) if setup.optimizer.blocks else trained.total
    match setup.zero_stage:
        case 1:
            return 2 * count + (0 if offloads_optimizer(setup) else 4 * count / setup.world_size)
        case 2:
            return (2 if offloads_optimizer(setup) else 6) * count / setup.world_size
        case 3:
            return 0.0 if offloads_optimizer(setup) else 2 * count / setup.world_size
    if setup.sharding == "fsdp":
        return 0.0 if setup.offload else count * _width(setup) / setup.world_size
    return count * _width(setup)


def optimizer(setup: Setup, shape: Shape, trained: Trained) -> float:
    """Optimizer states; with ZeRO also the float32 master weights of the rank's partition.

    Paged states count as 0: they are CUDA managed memory outside PyTorch's allocator, evicted to the host under pressure
    (bitsandbytes/optim/optimizer.py, get_state_buffer).
    """
    if offloads_optimizer(setup) or (setup.optimizer.paged and not setup.zero_stage):
        return 0.0
    kind = setup.optimizer
    count = _block(shape, trained) if kind.blocks else trained.total
    if kind.low_rank:
        return _low_rank_states(setup, shape, trained)
    width = 4 if setup.zero_stage or kind.blocks else _width(setup)
    states = kind.state_bytes if kind.state_bytes is not None else kind.states * width
    master = 4 if setup.zero_stage or kind.blocks else 0
    return count * (states + master) / (setup.world_size if setup.zero_stage or setup.sharding == "fsdp" else 1)


def _low_rank_states(setup: Setup, shape: Shape, trained: Trained) -> float:
    """GaLore, APOLLO: per linear a projector and two states of rank * longer side (arXiv 2403.03507, table 1); Adam for the rest."""
    rank, width = setup.optimizer.low_rank, _width(setup)
    every = msgspec.structs.replace(setup, lora_targets=("all",))
    projected = sum(
        layers * count * rank * (min(i, o) + 2 * max(i, o)) for layers, kind in shape.kinds for i, o, count in adapted_linears(every, kind)
    )
    rest = max(0.0, trained.total - shape.linear)
    return width * (projected * setup.trainable_layers / shape.layers + 2 * rest)


def step_temporary(setup: Setup, shape: Shape, trained: Trained) -> float:
    """Temporary tensors of the optimizer step."""
    kind = setup.optimizer
    if offloads_optimizer(setup):
        return 0.0
    largest = kind.largest * 4 * max(shape.largest_linear, shape.embedding if setup.method == "full" else 0)
    if setup.zero_stage == 3:
        return 8 * min(trained.total / setup.world_size, 1e9)
    if setup.zero_stage:
        return 4 * trained.total / setup.world_size
    if kind.blocks:
        return 4 * _block(shape, trained)
    share = setup.world_size if setup.sharding == "fsdp" else 1
    return kind.temporary * trained.total * _width(setup) / share + min(largest, 12.0 * trained.total)


def offloads_optimizer(setup: Setup) -> bool:
    """Whether optimizer states are kept in host memory."""
    return setup.zero.offload_optimizer or (setup.offload and setup.sharding != "none")


def _width(setup: Setup) -> int:
    """Bytes per trained parameter."""
    return setup.master_bytes if setup.full else setup.adapter_bytes


def _block(shape: Shape, trained: Trained) -> float:
    """Parameters of BAdam's largest block: a layer, or the embedding (arXiv 2404.02827)."""
    return min(trained.total, max((shape.text_params - shape.embedding - shape.head) / shape.layers, float(shape.embedding)))


def buckets(setup: Setup, trained: Trained) -> float:
    """Gradient buckets of DDP and ZeRO-1/2.

    - DDP: a second copy of every gradient (accelerate leaves gradient_as_bucket_view off).
    - ZeRO-1/2: a contiguous buffer, 2 bytes per element; two buffers with `overlap_comm`.
    """
    if setup.sharding == "ddp":
        return trained.total * _width(setup)
    if setup.zero_stage not in (1, 2):
        return 0.0
    return 2 * setup.zero.reduce_bucket * (2 if setup.zero.overlap and setup.world_size > 1 else 1)


def gathered(setup: Setup, shape: Shape) -> float:
    """Gathered weights during forward and backward.

    - FSDP: the root unit (embedding and head) in 16 bits.
    - ZeRO-3: two layers, the head and a prefetch bucket, at most stage3_max_live_parameters.
    """
    if setup.sharding == "fsdp":
        return 2.0 * (shape.embedding + shape.head)
    if setup.zero_stage == 3:
        return min(2 * setup.zero.max_live, 2 * (shape.head or shape.embedding) + 4 * _layer_params(shape) + 2e8)
    return 0.0


def gathered_layers(setup: Setup, shape: Shape) -> float:
    """Layers FSDP gathers in backward: the current and the prefetched layer; in full tuning also a layer's gradient."""
    if setup.sharding != "fsdp":
        return 0.0
    width = BYTES_PER_LINEAR.get(setup.quantized, 2.0)
    return _layer_params(shape) * (2 * width + (2 if setup.full else 0))


def _layer_params(shape: Shape) -> int:
    """Parameters of the largest layer."""
    sizes = []
    for _, kind in shape.kinds:
        attention = kind.attention if kind.attending else 0
        sizes.append(attention + kind.mixing // kind.layers + kind.mlp_params + 2 * kind.hidden)
    return max(sizes)


def trained_by_accident(setup: Setup, shape: Shape) -> float:
    """litgpt's QLoRA keeps the old embedding next to a new trainable embedding: 2 + 2 bytes (finetune/lora.py, main)."""
    return 4.0 * shape.embedding if setup.stack.startswith("litgpt") and setup.quantized else 0.0


def reference_model(setup: Setup, shape: Shape) -> float:
    """The reference model of DPO, KTO and PPO, and PPO's reward model; 16 bits, or 4 if configured."""
    share = setup.world_size if setup.zero_stage == 3 or setup.sharding == "fsdp" else 1
    per_model = quantised_weights(shape, setup.reference_quantized, 2) / share
    return per_model * ((setup.reference == "model") + setup.reward_model)
