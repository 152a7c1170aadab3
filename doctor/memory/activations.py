"""Memory that grows with the batch: checkpoints or saved activations, the work of one layer, logits, the vision tower.

All per-token figures are bytes a token of a micro batch, for a Hugging Face decoder computed in 16 bits. They are byte counts of the
tensors that transformers, peft and torch keep alive, checked against traces of the real code (tests/lab/memory_oracle.py).
"""

from __future__ import annotations

from doctor.memory.setup import Setup
from doctor.memory.shapes import Shape
from doctor.memory.static import adapted_linears


def checkpoint_per_layer(setup: Setup, shape: Shape) -> float:
    """One checkpoint: the residual stream that enters a layer; float32 if embeddings and norms are (full tuning with autocast)."""
    return float(setup.residual_bytes * shape.hidden)


def saved_per_layer(setup: Setup, shape: Shape) -> float:
    """Activations of one layer that autograd saves for backward, without checkpointing."""
    own = _full_saved(setup, shape) if setup.full else _adapter_saved(setup, shape)
    return own * setup.compute_bytes / 2 + _attention_scores(setup, shape) + _mask(setup)


def _norms(setup: Setup, shape: Shape) -> float:
    """Two RMSNorms: each keeps a float32 copy of its input; a fused kernel keeps the 16-bit input."""
    return (4 if setup.kernels != "plain" else 8) * shape.hidden


def _heads(setup: Setup, shape: Shape) -> float:
    """q, k, v and the attention output as the attention kernel keeps them. SDPA with a mask repeats k and v to all heads."""
    kv = shape.q if setup.attention == "sdpa" and setup.stack != "torchtune" else shape.kv
    return 4.0 * shape.q + 4 * kv + 4 * shape.heads


def mask_per_token(setup: Setup) -> float:
    """The padding mask that SDPA and eager attention are given: a row of the sequence's length for every token (masking_utils.py)."""
    return float(setup.length) if setup.attention != "fa2" and setup.stack.startswith("hf") else 0.0


def _mask(setup: Setup) -> float:
    """SDPA keeps the mask once more for backward, in 16 bits (attention.cpp, convert_boolean_attn_mask)."""
    return 2 * mask_per_token(setup) if setup.attention == "sdpa" else 0.0


def _gate(setup: Setup, shape: Shape) -> float:
    """gate, up and silu(gate) of the MLP; a fused kernel recomputes silu."""
    return (4 if setup.kernels != "plain" or not shape.gated else 6) * shape.mlp_width


def _full_saved(setup: Setup, shape: Shape) -> float:
    """Trained linears keep their inputs (the attention output is kept already), trained norms their normalised input unless fused.

    Over a float32 residual stream the normalised input is float32 and autocast makes q, k, v, gate and up a copy each: 10 more.
    """
    inputs = 4 if setup.kernels == "liger" else 8
    casts = 10 if setup.residual_bytes == 4 and setup.autocast else 0
    return _norms(setup, shape) + (inputs + casts) * shape.hidden + _heads(setup, shape) + _gate(setup, shape) + 2 * shape.mlp_width


def _adapter_saved(setup: Setup, shape: Shape) -> float:
    """Frozen linears keep nothing; each adapter keeps its own 16-bit copy of its input, and a mask where it drops out."""
    return _norms(setup, shape) + _heads(setup, shape) + _gate(setup, shape) + _adapter_inputs(setup, shape)


def _adapter_inputs(setup: Setup, shape: Shape) -> float:
    inputs = sum(i * min(count, max(1, shape.active)) for i, _, count in adapted_linears(setup, shape))
    if setup.stack.startswith("litgpt"):
        return _litgpt_inputs(setup, shape)
    if setup.stack.startswith("torchtune"):
        return _shared_inputs(setup, shape)
    width = 2 if setup.autocast or setup.adapter_bytes == 2 else 4
    return inputs * (width + (1 if setup.lora_dropout else 0))


def _litgpt_inputs(setup: Setup, shape: Shape) -> float:
    """litgpt: a dropped copy and its mask a linear (q, k, v are one); 4-bit linears of bitsandbytes < 0.43 keep their inputs too."""
    others = (shape.matrices - 1) * shape.hidden + shape.q + shape.mlp_width
    dropped = 3.0 * (shape.hidden + (others if setup.lora_targets[0].startswith("all") else 0))
    return dropped + (2.0 * (shape.hidden + others) if setup.quantized else 0)


def _shared_inputs(setup: Setup, shape: Shape) -> float:
    """torchtune: adapters keep the layer's own tensor, one for q, k, v and one for gate and up."""
    every = setup.lora_targets[0].startswith("all")
    parts = [
        ({"q_proj", "k_proj", "v_proj"}, shape.hidden),
        ({"o_proj", "output_proj"}, shape.q),
        ({"gate_proj", "up_proj"}, shape.hidden),
        ({"down_proj"}, shape.mlp_width),
    ]
    return 2.0 * sum(width for names, width in parts if every or names & set(setup.lora_targets))


def _attention_scores(setup: Setup, shape: Shape) -> float:
    """Eager attention keeps float32 probabilities and their 16-bit copy: 6 bytes a head and a position, so it grows with the length."""
    return 6.0 * shape.heads * setup.length if setup.attention == "eager" else 0.0


def layer_work(setup: Setup, shape: Shape) -> float:
    """Backward's working set of one layer: gradients inside its MLP, at the product of gate and up; with checkpointing the recomputed
    layer too. Eager attention's own gradients (4.5 bytes a score) are alive at another moment."""
    wide = setup.compute_bytes / 2
    gradient = max(_mlp_gradients(setup, shape) * wide, 4.5 * shape.heads * setup.length if setup.attention == "eager" else 0)
    if not setup.checkpointing:
        return gradient
    if setup.full and setup.kernels == "foak":
        return 15.0 * shape.hidden + 12 * shape.mlp_width
    return saved_per_layer(setup, shape) + gradient


def _mlp_gradients(setup: Setup, shape: Shape) -> float:
    """Traced: under full tuning the product is gone when its factors' gradients appear; an adapted MLP holds its adapters' copies too.

    Liger writes the gradients of gate and up over them (ops/swiglu.py), so only the product's and the stream's are new.
    """
    adapted = not setup.full and adapts_mlp(setup, shape)
    if setup.kernels == "liger":
        return (6.0 if adapted else 2.0) * shape.mlp_width + (8 if adapted else 4) * shape.hidden
    if setup.full:
        return 4.0 * shape.mlp_width + 4 * shape.hidden
    if setup.kernels == "foak":
        return 6.0 * shape.mlp_width + 8 * shape.hidden
    return (8.0 if adapted else 6.0) * shape.mlp_width + (8 if adapted else 6) * shape.hidden


def adapts_mlp(setup: Setup, shape: Shape) -> bool:
    """Whether a linear of the MLP has an adapter."""
    widths = {shape.intermediate, shape.expert_intermediate} - {0, shape.hidden}
    return any(widths & {i, o} for i, o, _ in adapted_linears(setup, shape))


def dora_work(setup: Setup, shape: Shape) -> float:
    """DoRA builds its update with an identity matrix as wide as the linear's input (peft/tuners/lora/dora.py), in float32 and cast,
    and several copies of the weight; each adapted linear keeps its two outputs for the magnitude's gradient."""
    if not setup.dora or setup.full:
        return 0.0
    linears = adapted_linears(setup, shape)
    matrices = max((6.0 * i * i + 12.0 * i * o for i, o, _ in linears), default=0.0)
    return matrices + setup.tokens * 4.0 * sum(o * min(count, max(1, shape.active)) for _, o, count in linears)


def work_while_dequantised(shape: Shape) -> float:
    """How much of the layer's work is not there yet when its last linear is unpacked to 16 bits."""
    return 4.0 * shape.mlp_width


def fsdp_adapter_extra(setup: Setup, shape: Shape) -> float:
    """FSDP with adapters keeps the gradient of every layer's input but the two ends alive to the end of backward.

    Measured, not derived: the slope of fms-acceleration's runs (Llama-3-8B, 2 and 4 GPUs, LoRA, QLoRA, GPTQ) exceeds the single-GPU
    slope by 2 * hidden * (layers - 2) bytes a token, exactly.
    """
    if setup.sharding != "fsdp" or setup.full or not setup.checkpointing:
        return 0.0
    return 2.0 * shape.hidden * (shape.layers - 2)


LOGIT_BYTES = {"fused": 8.0, "unsloth": 4.0, "torchtune": 2 + 2 + 12 / 8}
"""Bytes a logit of losses that are not transformers' own. Liger's fused linear loss never holds logits (arXiv 2410.10989)."""


def logits(setup: Setup, shape: Shape) -> float:
    """Bytes of logits and loss at the worst moment between the head's forward and its backward."""
    if setup.loss == "liger":
        return _fused_linear_loss(setup, shape)
    width = _logit_bytes(setup) + (4.0 if shape.softcap and setup.loss != "fused" else 0)
    return setup.tokens * (width * shape.vocab + (8.0 if setup.full and setup.kernels == "plain" else 6.0) * shape.hidden)


def _logit_bytes(setup: Setup) -> float:
    """Bytes a logit.

    transformers (loss/loss_utils.py): log-softmax, the gradient of nll and of log-softmax, 4 each; 4.46 to 4.48 shift a copy,
    torchtune keeps the 16-bit logits.
    DPO (train/dpo/trainer.py): float32 logits and log-softmax of the policy stay while the reference is run with three more such
    tensors: 20; KTO runs a second reference batch with the first one's logits alive: 24. RM makes float32 logits and drops them: 6.
    """
    if setup.loss == "litgpt":  # Fabric returns float32 logits; log-softmax stays, its gradients exist for 128 positions at a time
        return 8.0 + 8 * min(1.0, 128 / setup.length)
    staged = {"dpo": 12.0 if setup.reference == "none" else 20.0, "kto": 24.0, "rm": 6.0, "ppo": 16.0}
    if setup.stage in staged:
        return staged[setup.stage]
    more = 2.0 if setup.wide_logits or setup.stack.startswith("torchtune") else 0.0
    return 12.0 + more if setup.loss == "plain" else LOGIT_BYTES[setup.loss] + (more if setup.loss == "fused" else 0)


def _fused_linear_loss(setup: Setup, shape: Shape) -> float:
    """Liger's loss (ops/fused_linear_cross_entropy.py): logits of a chunk, the input's gradient, and the head's where it is trained
    (in its own width, with a product in 16 bits and its float32 copy on the way)."""
    chunks = -(-shape.vocab // shape.hidden)
    chunk = 1 << max(0, -(-setup.tokens // chunks) - 1).bit_length()
    head = (setup.master_bytes + 6.0) * shape.embedding if setup.method == "full" else 0.0
    return 2.0 * min(chunk, setup.tokens) * shape.vocab + 6.0 * shape.hidden * setup.tokens + head


def evaluation_logits_per_token(setup: Setup, shape: Shape) -> float:
    """Bytes a token of evaluation: logits 2, float32 copy 4, log-softmax 4; Liger makes them here too. DPO and KTO add the reference's."""
    more = 4.0 if setup.reference != "none" else 0.0
    return (10.0 + more) * shape.vocab + 6 * shape.hidden


def generation_cache_per_token(shape: Shape) -> float:
    """Keys and values of all layers in 16 bits, for predict_with_generate."""
    return 4.0 * shape.kv * shape.layers


def vision_work(setup: Setup, shape: Shape) -> float:
    """Forward of a frozen vision tower over one image a sequence: patches x (residuals and one MLP); nothing is kept for backward."""
    if shape.vision is None:
        return 0.0
    patches = setup.image_pixels / shape.vision.patch**2
    return setup.sequences * patches * (10 * shape.vision.hidden + 6 * shape.vision.intermediate)


def dequantised(setup: Setup, shape: Shape) -> float:
    """The 16-bit copy of the linear that is being computed; litgpt quantises the head too."""
    largest = max(shape.largest_linear, shape.head if setup.stack.startswith("litgpt") else 0)
    return 2.0 * largest if setup.quantized else 0.0
