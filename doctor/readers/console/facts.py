"""Facts and phases that single console lines state: messages of LLaMA-Factory (since 0.7) and transformers, in all their wordings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from doctor.core.facts import info
from doctor.core.phases import MARKERS, Phase
from doctor.readers.console import host_memory
from doctor.support.lazy_regex import lazy_compile

_Make = Callable[[re.Match[str]], dict[str, Any]]
_CONVERT: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(text.replace(",", "")), "float": lambda text: _finite(float(text.replace(",", ""))), "str": str, "bool": bool,
}  # fmt: skip
"""Type of a fact -> how its text is read."""
_ATTENTION = {"FlashAttention-2": "fa2", "flash_attention_2": "fa2", "torch SDPA": "sdpa", "vanilla": "eager"}
_OWN: dict[str, Callable[[str], Any]] = {
    "attention": lambda text: _ATTENTION.get(text, text),
    "finetuning_method": str.lower,
    "first_sample.masked_tokens": lambda text: text.count("-100"),
}
"""Facts whose text is read otherwise."""


def _finite(number: float) -> float:
    if math.isinf(number):
        raise OverflowError
    return number


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


def _parameters(found: re.Match[str]) -> dict[str, Any]:
    trainable, whole = map(_CONVERT["int"], found.groups())
    return {"model.trainable_params": trainable, "model.params": whole, **({"finetuning_method": "full"} if trainable == whole > 0 else {})}


def _runtime(found: re.Match[str]) -> dict[str, Any]:
    """`0:02:59.80` or `1 day, 2:03:04`, as transformers prints seconds (trainer_pt_utils.py metrics_format)."""
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return {"train.runtime_seconds": days * 86400 + hours * 3600 + minutes * 60 + seconds}


_PACKAGE = re.compile(r"No module named '(\w+)|not found in your environment: ([\w\-]+)|requires the (\w+) library")


def _processor(found: re.Match[str]) -> dict[str, Any]:
    """Why LLaMA-Factory (0.9.4 and newer) went on without the model's processor, and the package that was missing for it."""
    facts: dict[str, Any] = {"processor.error": found["error"]}
    if (missing := _PACKAGE.search(found["error"])) is not None:
        facts["processor.package"] = missing[missing.lastindex or 0]
    return facts


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


def _maker(name: str) -> _Make:
    """What makes this fact of a match's first group."""
    known = info(name)
    convert = _OWN.get(name) or _CONVERT[known.type if known else "str"]
    return lambda found: {name: convert(found[1])}


def _rows(behind: str, names: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Rows of facts whose values stand alike behind their words."""
    return ((word, re.escape(word) + behind, name) for word, name in names.items())


_ROWS: tuple[tuple[str, str, str | _Make], ...] = (
    ("Process rank:", r"(?:llamafactory\.hparams\.parser:(?P<line>\d{1,5}) >> )?"
     r"Process rank: -?\d+, (?:world size: (?P<world>\d+), )?device: (?P<device>[\w:]+)"
     r"(?:, n_gpu: \d+)?(?:, distributed training: (?P<distributed>True|False))?(?:, compute dtype: (?P<dtype>[\w.]+))?", _process),
    ("distributed tasks at", r"Initializing (\d+) distributed tasks", "gpu.count"),
    ("Fine-tuning method:", r"Fine-tuning method: (\w+)", "finetuning_method"),
    ("trainable params:", r"trainable params: ([\d,]+) \|\| all params: ([\d,]+)", _parameters),
    ("Quantizing model to", r"Quantizing model to (\d+) bit", "quantized.bits"),
    ("-quantized model", r"Loading (\d+)-bit \S*-quantized model", "quantized.bits"),
    ("for faster training", r"Using (FlashAttention-2|torch SDPA) for faster", "attention"),
    ("vanilla attention", r"Using (vanilla) attention implementation", "attention"),
    ("Loading dataset ", r"llamafactory\.data\.loader\S* >> Loading dataset (\S{1,300}?)\.\.\.", "dataset.loading"),
    ("Failed to load processor: ",
     r"llamafactory\.model\.loader\S* >> Failed to load processor: (?P<error>.{1,300}?)\.?\s*$", _processor),
    ("[-100, -100", r"^\s*\[(-100(?:, -100)*)\]\s*$", "first_sample.masked_tokens"),
    ("Resuming training from", r"Resuming training from (\S+?)\.?(?:\s|$)", "resumed_from"),
    ("Saving model checkpoint to", r"Saving model checkpoint to \S{0,400}?checkpoint-(\d{1,12})\b", "checkpoint.saved"),
    ("Auto-detected latest checkpoint:", r"Auto-detected latest checkpoint: (\S+)", "resumed_from"),
    ("loaded checkpoint from", r"successfully loaded checkpoint from (\S+) .{0,80}\bat iteration [1-9]", "resumed_from"),
    ("Checkpoint saved to", r"Checkpoint saved to \S{0,400}?checkpoint-(\d{1,12})\b", "checkpoint.saved"),
    ("saved checkpoint from iteration", r"saved checkpoint from iteration +(\d{1,12})\b", "checkpoint.saved"),
    ("Model saved to", r"llamafactory\.v1\.\S{1,80} >> (Model saved to)", "run.completed"),
    ("stopping training.", r"(Reached max_steps) \(\d{1,12}\), stopping training\.", "run.completed"),
    ("DistributedInterface initialized", r"DistributedInterface initialized: .{0,199}\bdp_size=(?P<dp>\d{1,6}), cp_size=(?P<cp>\d{1,6})"
     r"\)\).{0,40}?current_device=(?P<device>\w+)", _v1_processes),
    ("Using attention implementation:", r"Using attention implementation: (sdpa|flash_attention_2|eager)\b", "attention"),
    ("-bit quantized model", r"Loading (\d)-bit quantized model", "quantized.bits"),
    ("closing signal SIGTERM", r"Sending process \d+ (closing signal) SIGTERM", "launcher.closed_workers"),
    ("num_proc=", r"\(num_proc=(\d+)\)", "preprocessing.workers"),
    ("batch size per device", r"Instantaneous batch size per device\s*=\s*([\d,]+)", "batch.per_device"),
    ("Total train batch size", r"Total train batch size[^=]{0,80}=\s*([\d,]+)", "batch.total"),
    *_rows(r"\s*[=:]\s*([\d,]+)", {"Num examples": "examples.num", "Num Epochs": "epochs.planned"}),
    *_rows(r"\s*=\s*([\d,]+)", {
        "Gradient Accumulation steps": "batch.accumulation", "Num update steps per epoch": "steps.per_epoch",
        "Total optimization steps": "steps.planned", "Total training steps": "steps.planned",
        "Number of trainable parameters": "model.trainable_params",
    }),
    ("total capacity of", r"GPU \d+ has a total capac\w+ of ([\d.]+) GiB", "gpu.total_gib"),
    ("total capacity;", r"\(GPU \d+; ([\d.]+) GiB total capacity", "gpu.total_gib"),
    ("zero_optimization_stage", r"zero_optimization_stage \.+ (\d)", "deepspeed.stage"),
    *_rows(r": (\S+)", {  # as `llamafactory-cli env` and `transformers-cli env` write it
        "llamafactory version": "versions.llamafactory", "`llamafactory` version": "versions.llamafactory",
        "`transformers` version": "versions.transformers", "- Transformers version": "versions.transformers",
        **{f"- {name} version": f"versions.{name.lower()}" for name in ("Accelerate", "Datasets", "TRL", "PEFT", "DeepSpeed", "Python")},
    }),
    ("- PyTorch version", r"- PyTorch version[^:]{0,20}: (\S+)", "versions.torch"),
    ("- GPU type", r"- GPU type: (.+?)\s*$", "gpu.name"),
    ("- GPU memory", r"- GPU memory: ([\d.]+) ?GB", "gpu.total_gib"),
    ("- GPU number", r"- GPU number: (\d+)", "gpu.count"),
    ("transformers_version", r'"transformers_version": "([\w.]+)"', "versions.transformers"),
    ("DeepSpeed info", r"DeepSpeed info: version=([\w.]+)", "versions.deepspeed"),
    ("train_loss  ", r"^\s*train_loss\s+=\s+(\d+(?:\.\d+)?)\s*$", "train.loss"),
    ("eval_loss  ", r"^\s*eval_loss\s+=\s+(\d+(?:\.\d+)?)\s*$", "eval.loss"),
    ("train_runtime  ", r"^\s*train_runtime\s+=\s+(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)\s*$", _runtime),
    ("model_type", r'"model_type": "([\w-]+)"', "model.type"),
    *((f"{name}  ", _PIP_LIST, _installed) for name in _LISTED),
    *((word, pattern, _host_memory(kind)) for word, pattern, kind in host_memory.PATTERNS),
)  # fmt: skip
"""A word of the line, the expression that finds the value, and the fact that has it, or what makes facts of a match."""
_PATTERNS = {word: (lazy_compile(pattern), _maker(made) if isinstance(made, str) else made) for word, pattern, made in _ROWS}
NAMES = frozenset(made for _, _, made in _ROWS if isinstance(made, str))
"""The facts with a row of their own."""

WORDS = (*CONSTANT, *_PATTERNS, *MARKERS)
"""Every line with a fact or a phase contains one of these."""

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
        if word in _PATTERNS and (found := _PATTERNS[word][0].search(text)) is not None:
            facts += _safe(_PATTERNS[word][1], found)
    return facts, phase


def _safe(make: _Make, found: re.Match[str]) -> Iterable[tuple[str, Any]]:
    try:
        return make(found).items()
    except (ValueError, OverflowError):  # a number of hundreds of digits
        return ()
