"""What a configuration means for memory: LLaMA-Factory's options and what is known of the run, turned into plain numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.memory import optimizers
from doctor.memory.optimizers import Optimizer
from doctor.memory.shapes import Shape

Sharding = Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp"]
Loss = Literal["plain", "liger", "fused", "unsloth", "litgpt", "torchtune"]
Kernels = Literal["plain", "liger", "foak"]
"""liger: fused norms, rotary embedding and MLP; foak: fused norms and rotary embedding only (fms-acceleration, Unsloth)."""

PAIRED_STAGES = ("rm", "dpo")
DEFAULT_LENGTH = 2048
"""cutoff_len where the file has none (LLaMA-Factory 0.9; 1024 before)."""

DEFAULT_BATCH = DEFAULT_EVAL_BATCH = 8
"""per_device_train_batch_size and per_device_eval_batch_size where the file has none (transformers)."""


class DeepSpeed(msgspec.Struct, frozen=True):
    """What a DeepSpeed file says about memory: ZeRO stage, what is offloaded, bucket sizes in elements."""

    stage: int = 0
    offload_optimizer: bool = False
    offload_params: bool = False
    reduce_bucket: float = 5e8
    allgather_bucket: float = 5e8
    max_live: float = 1e9
    overlap: bool = True


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """One training process: sizes in elements or tokens, element widths in bytes. `tokens` is sequences x length of a micro batch."""

    stage: str
    method: str
    quantized: str
    double_quant: bool
    packed_experts: bool
    lora_rank: int
    lora_targets: tuple[str, ...]
    lora_dropout: bool
    dora: bool
    additional: tuple[str, ...]
    adapter_bytes: int
    master_bytes: int
    autocast: bool
    small_bytes: int
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
    wide_logits: bool
    sharding: Sharding
    zero: DeepSpeed
    offload: bool
    world: int
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
        """Tokens of a micro batch, padding counted."""
        return self.sequences * self.length

    @property
    def full(self) -> bool:
        """Whether the model's own weights are trained (full or freeze)."""
        return self.method in ("full", "freeze")

    @property
    def sharded_params(self) -> bool:
        """Whether the weights themselves are split over the ranks."""
        return self.sharding in ("zero3", "fsdp")

    @property
    def zero_stage(self) -> int:
        """0 where DeepSpeed's ZeRO is not used."""
        return int(self.sharding[-1]) if self.sharding.startswith("zero") else 0


def read(config: Mapping[str, Any], facts: Mapping[str, Any], shape: Shape) -> Setup:
    """The setup that LLaMA-Factory would run for `config`, with `facts` (measured or printed by the run) taken before defaults."""
    precision = str(facts.get("precision") or "")
    stack = str(facts.get("stack") or "hf")
    method = str(config.get("finetuning_type") or "lora")
    stage = str(config.get("stage") or "sft")
    zero = deepspeed(config, facts)
    sharding = _sharding(facts, zero, config)
    pure = is_true(config.get("pure_bf16")) or "pure" in precision or "true" in precision or is_true(config.get("use_badam"))
    mixed = is_true(config.get("bf16")) or is_true(config.get("fp16")) or "amp" in precision
    autocast = mixed and not pure and "noamp" not in precision and not stack.startswith(("litgpt", "torchtune"))
    quantized = _quantisation(config, facts, shape)
    full = method in ("full", "freeze")
    master = 2 if pure or sharding.startswith("zero") else 4
    kbit = "kbit_fp32" in stack
    fp32_stream = kbit or (method == "full" and master == 4 and sharding in ("none", "ddp"))
    plain_fp32 = full and master == 4 and not autocast and not sharding.startswith("zero")
    micro = max(1, _int(config.get("per_device_train_batch_size"), DEFAULT_BATCH))
    liger = _liger(config, facts, stage, shape)
    return Setup(
        stage=stage,
        method=method,
        quantized="" if full else quantized,
        double_quant=_double_quant(config, facts, stack),
        packed_experts=shape.experts > 0 and packs_experts(facts),
        lora_rank=max(1, _int(config.get("lora_rank"), 8)),
        lora_targets=tuple(_names(config.get("lora_target")) or ("all",)),
        lora_dropout=_float(config.get("lora_dropout"), 0.0) > 0 or stack.startswith("litgpt"),
        dora=is_true(config.get("use_dora")),
        additional=_additional(config, facts),
        adapter_bytes=_adapter_bytes(facts, pure, stack),
        master_bytes=master,
        autocast=autocast,
        small_bytes=4 if kbit else (master if method == "full" and not sharding.startswith("zero") else 2),
        residual_bytes=4 if fp32_stream or plain_fp32 else 2,
        compute_bytes=4 if plain_fp32 else 2,
        optimizer=optimizers.read(config, facts),
        sequences=micro * (2 if stage in PAIRED_STAGES else 1),
        length=_length(config, facts),
        micro_batch=micro,
        accumulates=_int(config.get("gradient_accumulation_steps"), 1) > 1 or stack.startswith("litgpt"),
        checkpointing=not _checkpointing_off(config),
        checkpoints_on_host=is_true(config.get("use_unsloth_gc")) or is_true(config.get("use_unsloth")),
        attention=_attention(config, facts),
        loss=liger[0],
        kernels=liger[1],
        wide_logits=wide_logits(facts),
        sharding=sharding,
        zero=zero,
        offload=bool(facts.get("offload")) and str(facts.get("offload")) not in ("none", "0"),
        world=world_size(facts),
        trainable_layers=_trainable_layers(config, method, shape),
        reference=_reference(config, stage, method),
        reference_quantized="nf4" if _int(config.get("ref_model_quantization_bit"), 0) == 4 else "",
        reward_model=stage == "ppo" and str(config.get("reward_model_type") or "lora") != "api",
        eval_sequences=_eval_sequences(config, stage),
        generates=is_true(config.get("predict_with_generate")),
        stack=stack,
        image_pixels=_float(config.get("image_max_pixels"), 768 * 768),
    )


def is_true(value: Any) -> bool:
    """YAML's and the command line's ways to say true."""
    return value is True or str(value).strip().lower() in ("true", "1", "yes", "on")


def world_size(facts: Mapping[str, Any]) -> int:
    """Processes that share the work: world_size, else n_gpus, else gpu.count, else 1."""
    return max(1, next((_int(facts[key], 1) for key in ("world_size", "n_gpus", "gpu.count") if facts.get(key)), 1))


def transformers_version(facts: Mapping[str, Any]) -> tuple[int, int] | None:
    """(major, minor) of the run's transformers, where known."""
    found = re.match(r"(\d+)\.(\d+)", str(facts.get("versions.transformers") or ""))
    return (int(found[1]), int(found[2])) if found else None


def wide_logits(facts: Mapping[str, Any]) -> bool:
    """Whether the loss shifts a float32 copy of the logits: 4 more bytes a logit in transformers 4.46 to 4.48 (loss/loss_utils.py)."""
    if "446_448" in str(facts.get("stack") or ""):
        return True
    version = transformers_version(facts)
    return version is not None and (4, 46) <= version < (4, 49)


def packs_experts(facts: Mapping[str, Any]) -> bool:
    """Whether experts are one three-dimensional parameter a layer, not linears: transformers from 5.0 on (modeling_qwen3_moe.py).

    Neither bitsandbytes nor adapters on linears reach them then. A version that is not known is taken as LLaMA-Factory 0.9.5's newest.
    """
    version = transformers_version(facts)
    return version >= (5, 0) if version else not facts.get("stack")


def deepspeed(config: Mapping[str, Any], facts: Mapping[str, Any]) -> DeepSpeed:
    """The DeepSpeed settings: the mapping or file that `deepspeed` names, else what its file name says (ds_z3_offload_config.json)."""
    value = config.get("deepspeed")
    if not value:
        return DeepSpeed()
    raw = value if isinstance(value, Mapping) else _json(str(value), facts)
    if raw is not None:
        return _deepspeed_settings(raw)
    name = Path(str(value)).name.lower()
    found = re.search(r"(?:z|zero|stage)[-_]?([0123])", name)
    stage = int(found[1]) if found else _int(facts.get("deepspeed.stage"), 2)
    offload = "offload" in name
    return DeepSpeed(stage=stage, offload_optimizer=offload, offload_params=offload and stage == 3)


def _deepspeed_settings(raw: Mapping[str, Any]) -> DeepSpeed:
    zero = raw.get("zero_optimization")
    zero = zero if isinstance(zero, Mapping) else {}

    def offloaded(name: str) -> bool:
        part = zero.get(name)
        return isinstance(part, Mapping) and str(part.get("device", "none")) in ("cpu", "nvme")

    return DeepSpeed(
        stage=_int(zero.get("stage"), 0),
        offload_optimizer=offloaded("offload_optimizer"),
        offload_params=offloaded("offload_param"),
        reduce_bucket=_float(zero.get("reduce_bucket_size"), 5e8),
        allgather_bucket=_float(zero.get("allgather_bucket_size"), 5e8),
        max_live=_float(zero.get("stage3_max_live_parameters"), 1e9),
        overlap=is_true(zero.get("overlap_comm", True)),
    )


def _json(name: str, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for folder in (Path(str(facts.get("config.folder") or ".")), Path()):
        path = folder / name
        try:
            if path.is_file() and path.stat().st_size < 1_000_000:
                raw = json.loads(path.read_text(encoding="utf-8"))
                return raw if isinstance(raw, dict) else None
        except (OSError, ValueError):
            return None
    return None


def _sharding(facts: Mapping[str, Any], zero: DeepSpeed, config: Mapping[str, Any]) -> Sharding:
    told = str(facts.get("shard") or "").lower()
    if told.startswith("fsdp") or (config.get("fsdp") and not told):
        return "fsdp"
    if told in ("zero1", "zero2", "zero3"):
        return told  # type: ignore[return-value]  # one of the Literal's words, tested above
    stage = zero.stage or _int(facts.get("deepspeed.stage"), 0)
    if stage in (1, 2, 3) and not told:
        return f"zero{stage}"  # type: ignore[return-value]  # zero1, zero2 or zero3
    return "ddp" if world_size(facts) > 1 else "none"


def _quantisation(config: Mapping[str, Any], facts: Mapping[str, Any], shape: Shape) -> str:
    told = str(facts.get("method") or "")
    if told.startswith("gptq"):
        return told.partition("-")[0]
    if shape.quantized:
        return shape.quantized
    bits = _int(config.get("quantization_bit"), 0)
    if not bits:
        return ""
    way = str(config.get("quantization_method") or "bnb").lower()
    if way in ("bnb", "bitsandbytes"):
        return "int8" if bits == 8 else "nf4"
    return f"{way}{bits}"


def _double_quant(config: Mapping[str, Any], facts: Mapping[str, Any], stack: str) -> bool:
    if stack.startswith("litgpt"):
        return "dq" in str(facts.get("notes") or "").partition(";")[0]
    return is_true(config.get("double_quantization", True))


def _adapter_bytes(facts: Mapping[str, Any], pure: bool, stack: str) -> int:
    told = str(facts.get("lora_dtype") or "")
    if told:
        return 2 if told in ("bf16", "fp16") else 4
    return 2 if pure or stack.startswith(("litgpt", "torchtune")) else 4


def _additional(config: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[str, ...]:
    if facts.get("method") == "lora+emb":
        return ("embed_tokens", "lm_head")
    names = tuple(_names(config.get("additional_target")))
    return names or (("embed_tokens", "lm_head") if is_true(config.get("resize_vocab")) else ())


def _length(config: Mapping[str, Any], facts: Mapping[str, Any]) -> int:
    cutoff = _int(config.get("cutoff_len"), DEFAULT_LENGTH)
    longest = _int(facts.get("length"), cutoff)
    return max(8, -(-min(longest, cutoff) // 8) * 8)


def _checkpointing_off(config: Mapping[str, Any]) -> bool:
    return is_true(config.get("disable_gradient_checkpointing")) and not is_true(config.get("gradient_checkpointing"))


def _attention(config: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    told = str(facts.get("attention") or config.get("flash_attn") or "sdpa").lower()
    if told in ("eager", "disabled", "off", "manual"):
        return "eager"
    return "fa2" if told.startswith(("fa", "flash")) else "sdpa"


LIGER_TYPES = """
gemma gemma2 gemma3 gemma3_text glm glm4 glm4v granite llama llava mistral mixtral mllama olmo2 paligemma phi3
qwen2 qwen2_vl qwen2_5_vl qwen3 qwen3_moe qwen3_next qwen3_5 gpt_oss
""".split()  # noqa: SIM905 (a list of 24 lines says no more)
"""Model types that LLaMA-Factory 0.9.5 gives to Liger (model_utils/liger_kernel.py); for others the option does nothing."""


def _liger(config: Mapping[str, Any], facts: Mapping[str, Any], stage: str, shape: Shape) -> tuple[Loss, Kernels]:
    """The loss in use, and which of a layer's kernels are fused."""
    told = str(facts.get("chunked_loss") or "none").lower()
    named: dict[str, tuple[Loss, Kernels]] = {
        "foak-ce": ("fused", "foak"),
        "liger": ("liger", "foak"),
        "unsloth": ("unsloth", "foak"),
        "litgpt128": ("litgpt", "plain"),
        "torchtune-chunked": ("torchtune", "plain"),
    }
    if told in named:
        return named[told]
    if str(facts.get("stack") or "").startswith("litgpt"):
        return "litgpt", "plain"
    if is_true(config.get("use_unsloth")):
        return "unsloth", "foak"
    if not is_true(config.get("enable_liger_kernel")) or (shape.type and shape.type not in LIGER_TYPES):
        return "plain", "plain"
    return ("liger" if stage in ("pt", "sft") else "plain"), "liger"


def _trainable_layers(config: Mapping[str, Any], method: str, shape: Shape) -> int:
    if method != "freeze":
        return shape.layers
    return min(shape.layers, abs(_int(config.get("freeze_trainable_layers"), 2)) or shape.layers)


def _reference(config: Mapping[str, Any], stage: str, method: str) -> Literal["none", "adapter", "model"]:
    """Where DPO, KTO and PPO take reference log-probabilities from (train/trainer_utils.py, create_ref_model)."""
    if stage == "dpo" and str(config.get("pref_loss") or "sigmoid") in ("orpo", "simpo"):
        return "none"
    if stage not in ("dpo", "kto", "ppo"):
        return "none"
    return "adapter" if method == "lora" and not config.get("ref_model") else "model"


def _eval_sequences(config: Mapping[str, Any], stage: str) -> int:
    """Sequences of an evaluation batch; 0 where nothing is evaluated during training."""
    strategy = str(config.get("eval_strategy") or config.get("evaluation_strategy") or "no").lower()
    evaluates = (strategy not in ("no", "false") or is_true(config.get("do_eval"))) and (
        config.get("eval_dataset") is not None or _float(config.get("val_size"), 0.0) > 0
    )
    if not evaluates:
        return 0
    return max(1, _int(config.get("per_device_eval_batch_size"), DEFAULT_EVAL_BATCH)) * (2 if stage in PAIRED_STAGES else 1)


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


def _int(value: Any, default: int) -> int:
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return default


def _float(value: Any, default: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default
