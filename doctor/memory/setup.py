"""The settings of one training process that decide its memory, from LLaMA-Factory's options and the facts of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from doctor.config import deepspeed
from doctor.config.deepspeed import DeepSpeed
from doctor.config.values import as_float, as_int, as_names, is_true
from doctor.memory import optimizers, stack
from doctor.memory.optimizers import Optimizer
from doctor.memory.shapes import Shape
from doctor.memory.stack import Kernels, Loss

Sharding = Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"]

PAIRED_STAGES = ("rm", "dpo")
"""Stages in which a sample is a pair of sequences (chosen and rejected)."""

DEFAULT_LENGTH = 2048
"""Default cutoff_len (LLaMA-Factory 0.9; before that 1024)."""

DEFAULT_BATCH = DEFAULT_EVAL_BATCH = 8
"""Default per_device_train_batch_size and per_device_eval_batch_size (transformers)."""

ASSUMED_ZERO_STAGE = 2
"""Stage if a DeepSpeed file cannot be read and its name does not say it: that of most published LLaMA-Factory configs."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """One training process. Sizes are in elements or tokens, `*_bytes` are bytes per element.

    - `quantized`: nf4, int8, gptq, ... or empty; `packed_experts`: a layer's experts are one tensor that is neither quantised nor adapted.
    - `master_bytes`: trained weights of full and freeze tuning; `adapter_bytes`: adapters; `embedding_bytes`: embedding, head and norms of
      a loaded model; `residual_bytes`: hidden states between layers; `compute_bytes`: matrix products.
    - `length`: tokens of a sequence, padded to a multiple of 8; `sequences`: of a micro batch (two per pair).
    - `copies_logits_in_fp32`: the loss shifts a float32 copy of the logits.
    - `reference`: where reference log-probabilities come from; `stack`: the software that the measurements name (hf for LLaMA-Factory).
    - `eval_sequences`: of an evaluation batch, 0 without evaluation during training; `image_pixels`: limit per image.
    """

    stage: str
    method: str
    quantized: str
    double_quant: bool
    packed_experts: bool
    lora_rank: int
    lora_targets: tuple[str, ...]
    lora_dropout: bool
    dora: bool
    additional_targets: tuple[str, ...]
    adapter_bytes: int
    master_bytes: int
    autocast: bool
    embedding_bytes: int
    residual_bytes: int
    compute_bytes: int
    optimizer: Optimizer
    sequences: int
    length: int
    micro_batch: int
    accumulates: bool
    checkpointing: bool
    checkpoints_on_host: bool
    attention: str
    loss: Loss
    kernels: Kernels
    copies_logits_in_fp32: bool
    sharding: Sharding
    zero: DeepSpeed
    offload: bool
    world_size: int
    trainable_layers: int
    reference: Literal["none", "adapter", "model"]
    reference_quantized: str
    reward_model: bool
    eval_sequences: int
    generates: bool
    stack: str
    image_pixels: float

    @property
    def tokens(self) -> int:
        """Tokens of a micro batch, including padding."""
        return self.sequences * self.length

    @property
    def full(self) -> bool:
        """Whether the model's own weights are trained (full or freeze)."""
        return self.method in ("full", "freeze")

    @property
    def sharded_params(self) -> bool:
        """Whether the weights themselves are sharded over the ranks."""
        return self.sharding in ("zero3", "fsdp")

    @property
    def zero_stage(self) -> int:
        """The ZeRO stage; 0 without ZeRO."""
        return int(self.sharding[-1]) if self.sharding.startswith("zero") else 0


def read(config: Mapping[str, Any], facts: Mapping[str, Any], shape: Shape) -> Setup:
    """The setup that LLaMA-Factory would run for `config`; `facts` (measured or printed by the run) take precedence over defaults."""
    precision = str(facts.get("precision") or "")
    software = str(facts.get("stack") or "hf")
    method = str(config.get("finetuning_type") or "lora")
    stage = str(config.get("stage") or "sft")
    zero = _zero(config, facts)
    sharding = _sharding(facts, zero, config)
    pure = is_true(config.get("pure_bf16")) or "pure" in precision or "true" in precision or is_true(config.get("use_badam"))
    mixed = is_true(config.get("bf16")) or is_true(config.get("fp16")) or "amp" in precision
    autocast = mixed and not pure and "noamp" not in precision and not software.startswith(("litgpt", "torchtune"))
    quantized = _quantisation(config, facts, shape)
    full = method in ("full", "freeze")
    master = 2 if pure or sharding.startswith("zero") else 4
    prepared_for_kbit = "kbit_fp32" in software
    fp32_residual = prepared_for_kbit or (method == "full" and master == 4 and sharding in ("none", "ddp"))
    without_autocast = full and master == 4 and not autocast and not sharding.startswith("zero")
    micro = max(1, as_int(config.get("per_device_train_batch_size"), DEFAULT_BATCH))
    loss, kernels = stack.loss_and_kernels(config, facts, stage, shape)
    return Setup(
        stage=stage,
        method=method,
        quantized="" if full else quantized,
        double_quant=_double_quant(config, facts, software),
        packed_experts=shape.experts > 0 and stack.packs_experts(facts),
        lora_rank=max(1, as_int(config.get("lora_rank"), 8)),
        lora_targets=tuple(as_names(config.get("lora_target")) or ("all",)),
        lora_dropout=as_float(config.get("lora_dropout"), 0.0) > 0 or software.startswith("litgpt"),
        dora=is_true(config.get("use_dora")),
        additional_targets=_additional_targets(config, facts),
        adapter_bytes=_adapter_bytes(facts, pure, software),
        master_bytes=master,
        autocast=autocast,
        embedding_bytes=4 if prepared_for_kbit else (master if method == "full" and not sharding.startswith("zero") else 2),
        residual_bytes=4 if fp32_residual or without_autocast else 2,
        compute_bytes=4 if without_autocast else 2,
        optimizer=optimizers.read(config, facts),
        sequences=micro * (2 if stage in PAIRED_STAGES else 1),
        length=_length(config, facts),
        micro_batch=micro,
        accumulates=as_int(config.get("gradient_accumulation_steps"), 1) > 1 or software.startswith("litgpt"),
        checkpointing=not _checkpointing_off(config),
        checkpoints_on_host=is_true(config.get("use_unsloth_gc")) or is_true(config.get("use_unsloth")),
        attention=stack.attention(config, facts),
        loss=loss,
        kernels=kernels,
        copies_logits_in_fp32=stack.copies_logits_in_fp32(facts),
        sharding=sharding,
        zero=zero,
        offload=bool(facts.get("offload")) and str(facts.get("offload")) not in ("none", "0"),
        world_size=world_size(facts),
        trainable_layers=_trainable_layers(config, method, shape),
        reference=_reference(config, stage, method),
        reference_quantized="nf4" if as_int(config.get("ref_model_quantization_bit"), 0) == 4 else "",
        reward_model=stage == "ppo" and str(config.get("reward_model_type") or "lora") != "api",
        eval_sequences=_eval_sequences(config, stage),
        generates=is_true(config.get("predict_with_generate")),
        stack=software,
        image_pixels=as_float(config.get("image_max_pixels"), 768 * 768),
    )


def world_size(facts: Mapping[str, Any]) -> int:
    """Number of training processes: the fact world_size, else n_gpus, else gpu.count, else 1."""
    return max(1, next((as_int(facts[key], 1) for key in ("world_size", "n_gpus", "gpu.count") if facts.get(key)), 1))


def _zero(config: Mapping[str, Any], facts: Mapping[str, Any]) -> DeepSpeed:
    """The DeepSpeed settings; an unknown stage becomes ASSUMED_ZERO_STAGE, unknown overlap_comm true (which needs more memory)."""
    zero = deepspeed.read(config.get("deepspeed"), facts)
    stage = ASSUMED_ZERO_STAGE if zero.stage is None else zero.stage
    return msgspec.structs.replace(zero, stage=stage, overlap=zero.overlap is not False)


def _sharding(facts: Mapping[str, Any], zero: DeepSpeed, config: Mapping[str, Any]) -> Sharding:
    measured = str(facts.get("shard") or "").lower()
    if measured.startswith("fsdp") or (config.get("fsdp") and not measured):
        return "fsdp"
    if measured in ("zero1", "zero2", "zero3"):
        return measured  # type: ignore[return-value]  # checked against the Literal above
    if zero.stage in (1, 2, 3) and not measured:
        return f"zero{zero.stage}"  # type: ignore[return-value]  # zero1, zero2 or zero3
    return "ddp" if world_size(facts) > 1 else "none"


def _quantisation(config: Mapping[str, Any], facts: Mapping[str, Any], shape: Shape) -> str:
    measured = str(facts.get("method") or "")
    if measured.startswith("gptq"):
        return measured.partition("-")[0]
    if shape.quantized:
        return shape.quantized
    bits = as_int(config.get("quantization_bit"), 0)
    if not bits:
        return ""
    method = str(config.get("quantization_method") or "bnb").lower()
    if method in ("bnb", "bitsandbytes"):
        return "int8" if bits == 8 else "nf4"
    return f"{method}{bits}"


def _double_quant(config: Mapping[str, Any], facts: Mapping[str, Any], software: str) -> bool:
    if software.startswith("litgpt"):
        return "dq" in str(facts.get("notes") or "").partition(";")[0]
    return is_true(config.get("double_quantization", True))


def _adapter_bytes(facts: Mapping[str, Any], pure: bool, software: str) -> int:
    measured = str(facts.get("lora_dtype") or "")
    if measured:
        return 2 if measured in ("bf16", "fp16") else 4
    return 2 if pure or software.startswith(("litgpt", "torchtune")) else 4


def _additional_targets(config: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    if facts.get("method") == "lora+emb":
        return ("embed_tokens", "lm_head")
    names = tuple(as_names(config.get("additional_target")))
    return names or (("embed_tokens", "lm_head") if is_true(config.get("resize_vocab")) else ())


def _length(config: Mapping[str, Any], facts: Mapping[str, Any]) -> int:
    cutoff = as_int(config.get("cutoff_len"), DEFAULT_LENGTH)
    longest = as_int(facts.get("length"), cutoff)
    return max(8, -(-min(longest, cutoff) // 8) * 8)


def _checkpointing_off(config: Mapping[str, Any]) -> bool:
    return is_true(config.get("disable_gradient_checkpointing")) and not is_true(config.get("gradient_checkpointing"))


def _trainable_layers(config: Mapping[str, Any], method: str, shape: Shape) -> int:
    if method != "freeze":
        return shape.layers
    return min(shape.layers, abs(as_int(config.get("freeze_trainable_layers"), 2)) or shape.layers)


def _reference(config: Mapping[str, Any], stage: str, method: str) -> Literal["none", "adapter", "model"]:
    """The source of reference log-probabilities in DPO, KTO and PPO (train/trainer_utils.py, create_ref_model)."""
    if stage == "dpo" and str(config.get("pref_loss") or "sigmoid") in ("orpo", "simpo"):
        return "none"
    if stage not in ("dpo", "kto", "ppo"):
        return "none"
    return "adapter" if method == "lora" and not config.get("ref_model") else "model"


def _eval_sequences(config: Mapping[str, Any], stage: str) -> int:
    """Sequences of an evaluation batch; 0 if nothing is evaluated during training."""
    strategy = str(config.get("eval_strategy") or config.get("evaluation_strategy") or "no").lower()
    evaluates = (strategy not in ("no", "false") or is_true(config.get("do_eval"))) and (
        config.get("eval_dataset") is not None or as_float(config.get("val_size"), 0.0) > 0
    )
    if not evaluates:
        return 0
    return max(1, as_int(config.get("per_device_eval_batch_size"), DEFAULT_EVAL_BATCH)) * (2 if stage in PAIRED_STAGES else 1)
