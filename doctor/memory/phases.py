"""Memory terms and the phases of a training step in which they are alive. The run's peak is the highest phase, not the sum of terms."""

from __future__ import annotations

from collections.abc import Mapping

from doctor.memory import activations, static
from doctor.memory.setup import Setup
from doctor.memory.shapes import Shape


def terms_of(setup: Setup, shape: Shape, trained: static.Trained) -> dict[str, float]:
    """Every term in bytes per GPU; not all are alive at the same time."""
    tokens, layers = setup.tokens, setup.trainable_layers
    kept = activations.checkpoint_per_layer(setup, shape) if setup.checkpointing else activations.saved_per_layer(setup, shape)
    on_host = setup.checkpointing and setup.checkpoints_on_host
    return {
        "weights": static.weights(setup, shape, trained),
        "adapters": static.adapters(setup, trained),
        "gradients": static.gradients(setup, shape, trained),
        "optimizer": static.optimizer(setup, shape, trained),
        "optimizer_temporary": static.step_temporary(setup, shape, trained),
        "stray_embedding": static.trained_by_accident(setup, shape),
        "reference_models": static.reference_model(setup, shape),
        "gathered_weights": static.gathered(setup, shape),
        "gathered_layers": static.gathered_layers(setup, shape),
        "buckets": static.buckets(setup, trained),
        "checkpoints" if setup.checkpointing else "saved_activations": 0.0 if on_host else tokens * layers * kept,
        "attention_mask": tokens * activations.mask_per_token(setup),
        "dora": activations.dora_work(setup, shape),
        "layer_work": tokens * activations.layer_work(setup, shape),
        "fsdp_adapter_extra": tokens * activations.fsdp_adapter_extra(setup, shape),
        "logits": activations.logits(setup, shape),
        "autocast_copies": _autocast_copies(setup, shape, trained)[0],
        "dequantised": activations.dequantised(setup, shape),
        "vision_tower": activations.vision_work(setup, shape),
    }


def _autocast_copies(setup: Setup, shape: Shape, trained: static.Trained) -> tuple[float, float, float]:
    """Bytes of autocast's 16-bit copies of float32 weights in forward, at the loss and in backward.

    The cache keeps every copy until forward ends (autocast_mode.cpp). Afterwards the graph keeps what backward needs: all copies, or
    with checkpointing the head's copy at the loss and the recomputed layer's copy in backward.
    """
    if not setup.autocast or setup.sharding not in ("none", "ddp"):
        return 0.0, 0.0, 0.0
    trains_head = "head" in " ".join(setup.additional_targets)
    head = 2.0 * shape.embedding if setup.method == "full" else 2.0 * trained.copies if trains_head else 0.0
    whole = 2 * trained.own if setup.full and setup.master_bytes == 4 else head
    if not setup.checkpointing:
        return whole, whole, whole
    layer = 2.0 * (trained.own - shape.embedding - shape.head) / shape.layers if setup.method == "full" else 0.0
    return whole, head, layer


def peaks_of(setup: Setup, shape: Shape, trained: static.Trained, terms: Mapping[str, float]) -> dict[str, float]:
    """The peak of each phase in bytes. With accumulation, earlier micro batches' gradients are alive in forward too."""
    engine = sum(terms[name] for name in ("weights", "adapters", "optimizer", "reference_models", "stray_embedding", "buckets"))
    base = engine + terms["gathered_weights"]
    earlier = terms["gradients"] if setup.accumulates else 0.0
    kept = terms.get("checkpoints", 0.0) + terms.get("saved_activations", 0.0) + terms["attention_mask"]
    unpacking = terms["dequantised"] - setup.tokens * activations.work_while_dequantised(shape)
    work = terms["layer_work"] + terms["dora"] + max(0.0, unpacking) + terms["gathered_layers"]
    entering = setup.tokens * activations.checkpoint_per_layer(setup, shape) + terms["attention_mask"]
    late = entering + _gradients_at_first_layer(setup, shape, trained, terms["gradients"])
    forward_logits = min(10.0 * setup.tokens * shape.vocab, terms["logits"])
    copies = _autocast_copies(setup, shape, trained)
    phases = {
        "forward": base + earlier + copies[0] + kept + max(forward_logits, terms["vision_tower"]),
        "loss": base + earlier + copies[1] + kept + terms["logits"],
        "backward": base + max(earlier, _head_gradient(setup, shape)) + copies[2] + kept + work + terms["fsdp_adapter_extra"],
        "backward_end": base + max(late + copies[2] + work, terms["gradients"] + _tied_sum(setup, shape)),
        "optimizer": engine + terms["gradients"] + terms["optimizer_temporary"],
    }
    if setup.eval_sequences:
        phases["evaluation"] = base + _evaluation(setup, shape)
    return phases


def _gradients_at_first_layer(setup: Setup, shape: Shape, trained: static.Trained, gradients: float) -> float:
    """Bytes of gradients during the first layer's backward: all except its own and an untied embedding's."""
    if not setup.optimizer.gradients:
        return float(setup.master_bytes * shape.largest_linear)
    if setup.method != "full" or not trained.own:
        return gradients
    layer = shape.attention + (shape.matrices - 1) * shape.mlp_params / shape.matrices  # down_proj already has its gradient
    missing = layer + (0 if shape.tied else shape.embedding)
    return gradients * max(0.0, 1 - missing / trained.own)


def _head_gradient(setup: Setup, shape: Shape) -> float:
    """Bytes of the head's gradient, which is computed first and kept."""
    return float(setup.master_bytes * shape.embedding) if setup.method == "full" and setup.sharding in ("none", "ddp") else 0.0


def _tied_sum(setup: Setup, shape: Shape) -> float:
    """Bytes of the sum of a tied embedding's two gradients, a third tensor (torch/csrc/autograd/input_buffer.cpp)."""
    return 2.0 * setup.master_bytes * shape.embedding if setup.method == "full" and shape.tied and not setup.sharded_params else 0.0


def _evaluation(setup: Setup, shape: Shape) -> float:
    tokens = setup.eval_sequences * setup.length
    cache = activations.generation_cache_per_token(shape) if setup.generates else 0.0
    return tokens * (activations.evaluation_logits_per_token(setup, shape) + cache)
