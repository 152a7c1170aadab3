"""Memory that grows with the batch: checkpoints or saved activations, a layer's working set, logits, the vision tower.

Per-token figures are bytes per token of a micro batch, for a Hugging Face decoder computed in 16 bits. They count the tensors that
transformers, peft and torch keep alive, verified against traces of the real code (tests/lab/memory_oracle.py).
"""

from __future__ import annotations

from doctor.memory.setup import Setup
from doctor.memory.shapes import Shape
from doctor.memory.static import adapted_linears


def checkpoint_per_layer(setup: Setup, shape: Shape) -> float:
    """A checkpoint: the residual streams entering a layer; float32 if embedding and norms are (full tuning with autocast)."""
    return float(setup.residual_bytes * shape.hidden * shape.streams)


def saved_per_layer(setup: Setup, shape: Shape) -> float:
    """Activations of a layer that autograd saves for backward, without checkpointing; the mean over the layers of a hybrid."""
    return sum(count * _saved(setup, kind) for count, kind in shape.kinds) / shape.layers


def _saved(setup: Setup, shape: Shape) -> float:
    """The same for a shape whose layers are all of one kind."""
    own = (_full_saved(setup, shape) if setup.full else _adapter_saved(setup, shape)) + _mixer(shape) + _other_streams(shape)
    return own * setup.compute_bytes / 2 + (_attention_scores(setup, shape) + _mask(setup) if shape.attending else 0)


MIXER_BYTES = {"delta_net": (4, 9), "mamba2": (2, 4), "conv": (2, 6)}
"""Bytes per token saved by a mixer with its fused kernels: (x what is projected into it, x what is projected out of it).

- delta_net (flash-linear-attention, chunk_gated_delta_rule): projections and convolution twice the width in; query and key repeated to
  all value heads, normalised, value, output, and a 64-wide matrix per head.
- mamba2 (mamba-ssm, mamba_split_conv1d_scan_combined): the projection, the output before and after its norm.
- conv: both gates with the input, the products before and after the convolution.

The first two are counted from the kernels' signatures; conv agrees with traces within 0.6 %.
"""


def _mixer(shape: Shape) -> float:
    if shape.mixer is None:
        return 0.0
    into, out = MIXER_BYTES[shape.mixer.kind]
    return float(into * shape.mixer.wide + out * shape.mixer.inner)


def _other_streams(shape: Shape) -> float:
    """AltUp (modeling_gemma3n.py): prediction and correction of each further residual stream, 16 bits each, and what they are made of."""
    return 8.0 * shape.hidden * (shape.streams - 1)


def _norms(setup: Setup, shape: Shape) -> float:
    """RMSNorms before mixing and MLP: each saves a float32 copy of its input; a fused kernel the 16-bit input."""
    parts = (1 if shape.attending or shape.mixer else 0) + (1 if shape.feeding else 0)
    width = 2 if setup.kernels != "plain" else 4
    if not setup.stack.startswith("hf"):
        return width * parts * shape.hidden
    heads = shape.q + shape.kv if shape.attending and shape.type.startswith(QK_NORM_TYPES) else 0
    return width * (parts * (2 if shape.type in FOUR_NORM_TYPES else 1) * shape.hidden + heads)


QK_NORM_TYPES = ("qwen3", "gemma3", "gemma4", "olmo2", "olmo3", "hunyuan_v1", "apertus", "minimax_m2")
"""Beginnings of model types with norms of queries and keys (transformers' modeling files; traced for qwen3, gemma3, olmo3, apertus)."""

FOUR_NORM_TYPES = ("gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text", "gemma4_unified", "glm4", "glm4v")
"""Model types with norms after attention and MLP too (traced for gemma3, gemma4, glm4)."""


def _heads(setup: Setup, shape: Shape) -> float:
    """q, k, v and the output as saved by the attention kernel. SDPA with a mask repeats k and v to all heads."""
    if not shape.attending:
        return 0.0
    kv = shape.q if setup.attention == "sdpa" and setup.stack != "torchtune" else shape.kv
    gate = 4 * shape.q if shape.gated_attention else 0  # the gate and its sigmoid
    return 4.0 * shape.q + 4 * kv + 4 * shape.heads + gate


def mask_per_token(setup: Setup) -> float:
    """The 4-D padding mask of SDPA and eager attention: a row of `length` bytes per token (masking_utils.py)."""
    return float(setup.length) if setup.attention != "fa2" and setup.stack.startswith("hf") else 0.0


def _mask(setup: Setup) -> float:
    """SDPA saves a 16-bit copy of the mask for backward (attention.cpp, convert_boolean_attn_mask)."""
    return 2 * mask_per_token(setup) if setup.attention == "sdpa" else 0.0


def _gate(setup: Setup, shape: Shape) -> float:
    """gate, up and silu(gate) of the MLP; a fused kernel recomputes silu. Apertus' xIELU keeps a mask and one more."""
    if shape.type == "apertus":
        return 7.0 * shape.mlp_width
    return (4 if setup.kernels != "plain" or not shape.gated else 6) * shape.mlp_width


def _full_saved(setup: Setup, shape: Shape) -> float:
    """Trained linears save their inputs; trained norms save the normalised input unless fused. The attention output counts elsewhere.

    With a float32 residual stream the normalised input is float32, and autocast makes a copy each for q, k, v, gate and up: 10 more.
    """
    inputs = 4 if setup.kernels == "liger" else 8
    casts = 10 if setup.residual_bytes == 4 and setup.autocast else 0
    return _norms(setup, shape) + (inputs + casts) * shape.hidden + _heads(setup, shape) + _gate(setup, shape) + 2 * shape.mlp_width


def _adapter_saved(setup: Setup, shape: Shape) -> float:
    """Frozen linears save nothing; each adapter saves a copy of its input, and with dropout a mask."""
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
    """litgpt: input after dropout and mask per linear, with q, k, v fused; 4-bit linears of bitsandbytes < 0.43 save their inputs too."""
    others = (shape.matrices - 1) * shape.hidden + shape.q + shape.mlp_width
    dropped = 3.0 * (shape.hidden + (others if setup.lora_targets[0].startswith("all") else 0))
    return dropped + (2.0 * (shape.hidden + others) if setup.quantized else 0)


def _shared_inputs(setup: Setup, shape: Shape) -> float:
    """torchtune: adapters save the layer's own tensors, shared by q, k, v and by gate and up."""
    every = setup.lora_targets[0].startswith("all")
    parts = [
        ({"q_proj", "k_proj", "v_proj"}, shape.hidden),
        ({"o_proj", "output_proj"}, shape.q),
        ({"gate_proj", "up_proj"}, shape.hidden),
        ({"down_proj"}, shape.mlp_width),
    ]
    return 2.0 * sum(width for names, width in parts if every or names & set(setup.lora_targets))


def _attention_scores(setup: Setup, shape: Shape) -> float:
    """Eager attention saves float32 probabilities and a 16-bit copy: 6 bytes per head and position."""
    return 6.0 * shape.heads * setup.length if setup.attention == "eager" else 0.0


def layer_work(setup: Setup, shape: Shape) -> float:
    """Working set of a layer's backward: the MLP's gradients, and with checkpointing the recomputed layer. Of a hybrid the largest layer.

    Gradients of eager attention (4.5 bytes per score) and of a mixer (as much as it saved) are alive at another time, so the largest
    of them counts.
    """
    return max(_work(setup, kind) for _, kind in shape.kinds)


def _work(setup: Setup, shape: Shape) -> float:
    wide = setup.compute_bytes / 2
    scores = 4.5 * shape.heads * setup.length if setup.attention == "eager" and shape.attending else 0
    gradient = max(_mlp_gradients(setup, shape) * wide, scores, _mixer(shape) * wide)
    if not setup.checkpointing:
        return gradient
    if setup.full and setup.kernels == "foak":
        return 15.0 * shape.hidden + 12 * shape.mlp_width
    return _saved(setup, shape) + gradient


def _mlp_gradients(setup: Setup, shape: Shape) -> float:
    """Peak of the gradients in an MLP, from traces.

    - Full tuning: the product of gate and up is freed before the gradients of its factors exist.
    - Adapters: an adapted MLP also holds its adapters' input copies.
    - Liger: overwrites gate and up with their gradients (ops/swiglu.py).
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
    """Whether any linear of the MLP has an adapter."""
    widths = {shape.intermediate, shape.expert_intermediate} - {0, shape.hidden}
    return any(widths & {i, o} for i, o, _ in adapted_linears(setup, shape))


def dora_work(setup: Setup, shape: Shape) -> float:
    """Bytes of DoRA's temporaries.

    - An identity matrix of the linear's input width, in float32 and 16 bits, and copies of the weight (peft/tuners/lora/dora.py).
    - Two outputs per adapted linear, saved for the gradient of the magnitude.
    """
    if not setup.dora or setup.full:
        return 0.0
    kinds = [adapted_linears(setup, kind) for _, kind in shape.kinds]
    matrices = max((6.0 * i * i + 12.0 * i * o for linears in kinds for i, o, _ in linears), default=0.0)
    outputs = max(sum(o * min(count, max(1, shape.active)) for _, o, count in linears) for linears in kinds)
    return matrices + setup.tokens * 4.0 * outputs


def work_while_dequantised(shape: Shape) -> float:
    """The part of `layer_work` not yet allocated when the layer's last linear is dequantised."""
    return 4.0 * shape.mlp_width


def fsdp_adapter_extra(setup: Setup, shape: Shape) -> float:
    """FSDP with adapters keeps the gradient of each layer's input, except the first and last, until backward ends.

    Measured, not derived: in fms-acceleration's runs (Llama-3-8B, 2 and 4 GPUs, LoRA, QLoRA, GPTQ) the memory per token exceeds the
    single-GPU value by exactly 2 * hidden * (layers - 2) bytes.
    """
    if setup.sharding != "fsdp" or setup.full or not setup.checkpointing:
        return 0.0
    return 2.0 * shape.hidden * (shape.layers - 2)


LOGIT_BYTES = {"fused": 8.0, "unsloth": 4.0, "torchtune": 2 + 2 + 12 / 8}
"""Bytes per logit of losses other than transformers' own. Liger's fused linear loss holds no logits (arXiv 2410.10989)."""


def logits(setup: Setup, shape: Shape) -> float:
    """Peak bytes of logits and loss between the head's forward and backward."""
    if setup.loss == "liger":
        return _fused_linear_loss(setup, shape)
    width = _logit_bytes(setup) + (4.0 if shape.softcap and setup.loss != "fused" else 0)
    return setup.tokens * (width * shape.vocab + (8.0 if setup.full and setup.kernels == "plain" else 6.0) * shape.hidden)


def _logit_bytes(setup: Setup) -> float:
    """Bytes per logit.

    - transformers (loss/loss_utils.py): log-softmax, gradient of NLL, gradient of log-softmax, 4 each. 4.46 to 4.48 shift a copy.
    - torchtune also keeps the 16-bit logits.
    - DPO (train/dpo/trainer.py): float32 logits and log-softmax of the policy, three such tensors for the reference: 20.
    - KTO: a second reference batch while the logits of the first are alive: 24.
    - RM: float32 logits, freed at once: 6.
    """
    if setup.loss == "litgpt":  # Fabric returns float32 logits and keeps log-softmax; its gradients are computed 128 positions at a time
        return 8.0 + 8 * min(1.0, 128 / setup.length)
    staged = {"dpo": 12.0 if setup.reference == "none" else 20.0, "kto": 24.0, "rm": 6.0, "ppo": 16.0}
    if setup.stage in staged:
        return staged[setup.stage]
    more = 2.0 if setup.copies_logits_in_fp32 or setup.stack.startswith("torchtune") else 0.0
    return 12.0 + more if setup.loss == "plain" else LOGIT_BYTES[setup.loss] + (more if setup.loss == "fused" else 0)


def _fused_linear_loss(setup: Setup, shape: Shape) -> float:
    """Liger's loss (ops/fused_linear_cross_entropy.py): a chunk of logits and the gradient of the input.

    A trained head adds its gradient, a 16-bit product and the product's float32 copy.
    """
    chunks = -(-shape.vocab // shape.hidden)
    chunk = 1 << max(0, -(-setup.tokens // chunks) - 1).bit_length()
    head = (setup.master_bytes + 6.0) * shape.embedding if setup.method == "full" else 0.0
    return 2.0 * min(chunk, setup.tokens) * shape.vocab + 6.0 * shape.hidden * setup.tokens + head


def evaluation_logits_per_token(setup: Setup, shape: Shape) -> float:
    """Evaluation, per logit: logits 2 bytes, float32 copy 4, log-softmax 4, with Liger too. DPO and KTO add the reference's."""
    more = 4.0 if setup.reference != "none" else 0.0
    return (10.0 + more) * shape.vocab + 6 * shape.hidden


def generation_cache_per_token(shape: Shape) -> float:
    """The 16-bit KV cache of all layers with attention, for predict_with_generate."""
    return 4.0 * shape.kv * shape.attending


def vision_work(setup: Setup, shape: Shape) -> float:
    """Forward of a frozen vision tower, an image per sequence: residuals and an MLP per patch; nothing is saved for backward."""
    if shape.vision is None:
        return 0.0
    patches = setup.image_pixels / shape.vision.patch**2
    return setup.sequences * patches * (10 * shape.vision.hidden + 6 * shape.vision.intermediate)


def dequantised(setup: Setup, shape: Shape) -> float:
    """The 16-bit copy of the linear in use; litgpt quantises the head too."""
    largest = max(shape.largest_linear, shape.head if setup.stack.startswith("litgpt") else 0)
    return 2.0 * largest if setup.quantized else 0.0
