"""Facts and phases that single console lines state: messages of LLaMA-Factory (since 0.7) and transformers, in all their wordings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from doctor.core.phases import MARKERS, Phase
from doctor.readers.console import host_memory
from doctor.support.lazy_regex import lazy_compile

_Make = Callable[[re.Match[str]], dict[str, Any]]


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _one(name: str, convert: Callable[[str], Any] = str) -> _Make:
    return lambda found: {name: convert(found[1])}


def _process(found: re.Match[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"device": found["device"].partition(":")[0]}
    if found["line"]:
        facts["llamafactory.parser_line"] = int(found["line"])
    if found["dtype"] is not None:  # the example scripts of transformers print the same line without it
        facts["framework"] = "llamafactory"
    if found["world"]:
        facts["world_size"] = int(found["world"])
    elif found["distributed"] == "False":
        facts["world_size"] = 1
    if found["dtype"] not in (None, "None"):
        facts["compute_dtype"] = found["dtype"].removeprefix("torch.")
    return facts


def _attention(found: re.Match[str]) -> dict[str, Any]:
    return {"attention": {"F": "fa2", "t": "sdpa", "v": "eager"}[found[1][0]]}


def _parameters(found: re.Match[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"model.trainable_params": _whole(found[1]), "model.params": _whole(found[2])}
    if facts["model.params"] and facts["model.trainable_params"] == facts["model.params"]:
        facts["finetuning_method"] = "full"
    return facts


def _card(found: re.Match[str]) -> dict[str, Any]:
    return {"gpu.total_gib": float(found[1])}


def _runtime(found: re.Match[str]) -> dict[str, Any]:
    """`0:02:59.80` or `1 day, 2:03:04`, as transformers prints seconds (trainer_pt_utils.py metrics_format)."""
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return {"train.runtime_seconds": days * 86400 + hours * 3600 + minutes * 60 + seconds}


def _v1_attention(found: re.Match[str]) -> dict[str, Any]:
    return {"attention": {"flash_attention_2": "fa2"}.get(found[1], found[1])}


def _v1_processes(found: re.Match[str]) -> dict[str, Any]:
    return {"world_size": int(found["dp"]) * int(found["cp"]), "device": found["device"], "llamafactory.trainer": "v1"}


def _host_memory(kind: str) -> _Make:
    return lambda found: host_memory.figures(found, kind)


def _installed(found: re.Match[str]) -> dict[str, Any]:
    return {f"versions.{found['name'].replace('-', '_')}": found["version"]}


_LISTED = (
    "llamafactory", "torch", "torch_npu", "torch-npu", "torchvision", "torchaudio", "transformers", "datasets", "accelerate", "peft", "trl",
    "deepspeed", "bitsandbytes",
)  # fmt: skip
"""Packages whose lines in the table of `pip list` are read."""
_PIP_LIST = r"^\s*(?P<name>[a-z][\w-]{3,20})\s{2,}(?P<version>\d[\w.+]{0,30})(?:\s+\S{1,300})?\s*$"


CONSTANT: dict[str, dict[str, Any]] = {
    "Gradient checkpointing enabled.": {"gradient_checkpointing": True},
    "***** Running training *****": {"run.started_training": True},
    "Training completed. Do not forget to share": {"run.completed": True},
    "***** train metrics *****": {"run.completed": True},
    "Fine-tuning mode: full tuning": {"finetuning_method": "full"},
    "[after training is done] datetime:": {"run.completed": True},
}
"""Text of a line -> the facts that it states."""

_PATTERNS: dict[str, tuple[re.Pattern[str], _Make]] = {
    word: (lazy_compile(pattern), make)
    for word, pattern, make in (
        ("Process rank:", r"(?:llamafactory\.hparams\.parser:(?P<line>\d{1,5}) >> )?"
         r"Process rank: -?\d+, (?:world size: (?P<world>\d+), )?device: (?P<device>[\w:]+)"
         r"(?:, n_gpu: \d+)?(?:, distributed training: (?P<distributed>True|False))?(?:, compute dtype: (?P<dtype>[\w.]+))?", _process),
        ("distributed tasks at", r"Initializing (\d+) distributed tasks", _one("gpu.count", int)),
        ("Fine-tuning method:", r"Fine-tuning method: (\w+)", _one("finetuning_method", str.lower)),
        ("trainable params:", r"trainable params: ([\d,]+) \|\| all params: ([\d,]+)", _parameters),
        ("Quantizing model to", r"Quantizing model to (\d+) bit", _one("quantized.bits", int)),
        ("-quantized model", r"Loading (\d+)-bit \S*-quantized model", _one("quantized.bits", int)),
        ("for faster training", r"Using (FlashAttention-2|torch SDPA) for faster", _attention),
        ("vanilla attention", r"Using (vanilla) attention implementation", _attention),
        ("Loading dataset ", r"llamafactory\.data\.loader\S* >> Loading dataset (\S{1,300}?)\.\.\.", _one("dataset.loading")),
        ("[-100, -100", r"^\s*\[(-100(?:, -100)*)\]\s*$", _one("first_sample.masked_tokens", lambda text: text.count("-100"))),
        ("Resuming training from", r"Resuming training from (\S+?)\.?(?:\s|$)", _one("resumed_from")),
        ("Saving model checkpoint to", r"Saving model checkpoint to \S{0,400}?checkpoint-(\d{1,12})\b", _one("checkpoint.saved", int)),
        ("Auto-detected latest checkpoint:", r"Auto-detected latest checkpoint: (\S+)", _one("resumed_from")),
        ("loaded checkpoint from", r"successfully loaded checkpoint from (\S+) .{0,80}\bat iteration [1-9]", _one("resumed_from")),
        ("Checkpoint saved to", r"Checkpoint saved to \S{0,400}?checkpoint-(\d{1,12})\b", _one("checkpoint.saved", int)),
        ("saved checkpoint from iteration", r"saved checkpoint from iteration +(\d{1,12})\b", _one("checkpoint.saved", int)),
        ("Model saved to", r"llamafactory\.v1\.\S{1,80} >> (Model saved to)", _one("run.completed", bool)),
        ("stopping training.", r"(Reached max_steps) \(\d{1,12}\), stopping training\.", _one("run.completed", bool)),
        ("DistributedInterface initialized", r"DistributedInterface initialized: .{0,199}\bdp_size=(?P<dp>\d{1,6}), cp_size=(?P<cp>\d{1,6})"
         r"\)\).{0,40}?current_device=(?P<device>\w+)", _v1_processes),
        ("Using attention implementation:", r"Using attention implementation: (sdpa|flash_attention_2|eager)\b", _v1_attention),
        ("-bit quantized model", r"Loading (\d)-bit quantized model", _one("quantized.bits", int)),
        ("closing signal SIGTERM", r"Sending process \d+ (closing signal) SIGTERM", _one("launcher.closed_workers", bool)),
        ("num_proc=", r"\(num_proc=(\d+)\)", _one("preprocessing.workers", int)),
        ("Num examples", r"Num examples\s*[=:]\s*([\d,]+)", _one("examples.num", _whole)),
        ("Num Epochs", r"Num Epochs\s*[=:]\s*([\d,]+)", _one("epochs.planned", lambda text: float(_whole(text)))),
        ("batch size per device", r"Instantaneous batch size per device\s*=\s*([\d,]+)", _one("batch.per_device", _whole)),
        ("Total train batch size", r"Total train batch size[^=]{0,80}=\s*([\d,]+)", _one("batch.total", _whole)),
        ("Gradient Accumulation steps", r"Gradient Accumulation steps\s*=\s*([\d,]+)", _one("batch.accumulation", _whole)),
        ("Total optimization steps", r"Total optimization steps\s*=\s*([\d,]+)", _one("steps.planned", _whole)),
        ("Total training steps", r"Total training steps\s*=\s*([\d,]+)", _one("steps.planned", _whole)),
        ("Num update steps per epoch", r"Num update steps per epoch\s*=\s*([\d,]+)", _one("steps.per_epoch", _whole)),
        ("Number of trainable parameters", r"Number of trainable parameters\s*=\s*([\d,]+)", _one("model.trainable_params", _whole)),
        ("total capacity of", r"GPU \d+ has a total capac\w+ of ([\d.]+) GiB", _card),
        ("total capacity;", r"\(GPU \d+; ([\d.]+) GiB total capacity", _card),
        ("zero_optimization_stage", r"zero_optimization_stage \.+ (\d)", _one("deepspeed.stage", int)),
        ("llamafactory version", r"llamafactory version: (\S+)", _one("versions.llamafactory")),
        # as `llamafactory-cli env` and `transformers-cli env` write it
        ("`llamafactory` version", r"`llamafactory` version: (\S+)", _one("versions.llamafactory")),
        ("`transformers` version", r"`transformers` version: (\S+)", _one("versions.transformers")),
        ("- Accelerate version", r"- Accelerate version: (\S+)", _one("versions.accelerate")),
        ("- Datasets version", r"- Datasets version: (\S+)", _one("versions.datasets")),
        ("- TRL version", r"- TRL version: (\S+)", _one("versions.trl")),
        ("- PyTorch version", r"- PyTorch version[^:]{0,20}: (\S+)", _one("versions.torch")),
        ("- Transformers version", r"- Transformers version: (\S+)", _one("versions.transformers")),
        ("- PEFT version", r"- PEFT version: (\S+)", _one("versions.peft")),
        ("- DeepSpeed version", r"- DeepSpeed version: (\S+)", _one("versions.deepspeed")),
        ("- Python version", r"- Python version: (\S+)", _one("versions.python")),
        ("- GPU type", r"- GPU type: (.+?)\s*$", _one("gpu.name")),
        ("- GPU memory", r"- GPU memory: ([\d.]+) ?GB", _card),
        ("- GPU number", r"- GPU number: (\d+)", _one("gpu.count", int)),
        ("transformers_version", r'"transformers_version": "([\w.]+)"', _one("versions.transformers")),
        ("DeepSpeed info", r"DeepSpeed info: version=([\w.]+)", _one("versions.deepspeed")),
        ("train_loss  ", r"^\s*train_loss\s+=\s+(\d+(?:\.\d+)?)\s*$", _one("train.loss", float)),
        ("eval_loss  ", r"^\s*eval_loss\s+=\s+(\d+(?:\.\d+)?)\s*$", _one("eval.loss", float)),
        ("train_runtime  ", r"^\s*train_runtime\s+=\s+(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)\s*$", _runtime),
        ("model_type", r'"model_type": "([\w-]+)"', _one("model.type")),
        *((f"{name}  ", _PIP_LIST, _installed) for name in _LISTED),
        *((word, pattern, _host_memory(kind)) for word, pattern, kind in host_memory.PATTERNS),
    )
}  # fmt: skip

WORDS = (*CONSTANT, *_PATTERNS, *MARKERS)
"""Every line with a fact or a phase contains one of these."""

EXPRESSIONS = tuple(pattern.pattern for pattern, _ in _PATTERNS.values())
"""Every line with a fact that is not constant matches one of these."""

_ANY = re.compile("|".join(re.escape(word) for word in sorted({*WORDS}, key=len, reverse=True)))


def has_fact(text: str) -> bool:
    """Whether the line may state a fact or a phase; then it is no part of an exception's message."""
    return _ANY.search(text) is not None or "'loss':" in text


def parse_facts(text: str) -> tuple[list[tuple[str, Any]], Phase | None]:
    """The facts that a line states, and the phase that it begins."""
    facts: list[tuple[str, Any]] = []
    phase: Phase | None = None
    for word in dict.fromkeys(_ANY.findall(text)):
        phase = MARKERS.get(word, phase)
        facts += CONSTANT.get(word, {}).items()
        if word in _PATTERNS:
            pattern, make = _PATTERNS[word]
            if (found := pattern.search(text)) is not None:
                facts += _safe(make, found)
    return facts, phase


def _safe(make: _Make, found: re.Match[str]) -> Iterator[tuple[str, Any]]:
    try:
        yield from make(found).items()
    except (ValueError, OverflowError):  # a number of hundreds of digits
        return
