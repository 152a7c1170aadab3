"""README.md that the Trainer writes at the very end: hyper-parameters, device count and versions of a finished run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.core.events import ConfigSeen, Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.file import File
from doctor.readers.origins import stage_of
from doctor.readers.values import option_value

_OPTIONS = {
    "learning_rate": "learning_rate", "train_batch_size": "per_device_train_batch_size", "eval_batch_size": "per_device_eval_batch_size",
    "seed": "seed", "gradient_accumulation_steps": "gradient_accumulation_steps", "lr_scheduler_type": "lr_scheduler_type",
    "lr_scheduler_warmup_ratio": "warmup_ratio", "lr_scheduler_warmup_steps": "warmup_steps", "num_epochs": "num_train_epochs",
    "training_steps": "max_steps",
}  # fmt: skip
_VERSIONS = {"Transformers": "transformers", "Pytorch": "torch", "PyTorch": "torch", "PEFT": "peft", "TRL": "trl"}
_ENTRY = re.compile(r"^- (\w+): (.+?)\s*$", re.M)
_VERSION = re.compile(r"^- (Transformers|Pytorch|PyTorch|PEFT|TRL):? (\d\S*)\s*$", re.M)


_TAG = re.compile(r"^- ([\w-]+)\s*$", re.M)
_METHODS = ("lora", "freeze", "full", "oft")
"""Tags by which LLaMA-Factory names the fine-tuning type (train/trainer_utils.py create_modelcard_and_push)."""


_TRL = "trl"
_STAGE_OF_TAG = {"sft": "sft", "reward-trainer": "rm", "ppo": "ppo", "dpo": "dpo", "kto": "kto", "orpo": "dpo"}
"""Tags by which trl names the trainer (trl/trainer/*.py `_tag_names`)."""


class ModelCard(ReaderBase):
    """Claims only a README.md with the Trainer's list of hyper-parameters, or trl's sentence about its trainer."""

    kind = "model_card"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name.lower() == "readme.md" and (b"raining hyperparameters" in head or b"This model was trained with " in head)

    def configs(self, file: File) -> Iterator[Event]:
        text = file.text(1 << 20) or ""
        entries = dict(_ENTRY.findall(text))
        values: dict[str, Any] = {option: option_value(entries[name]) for name, option in _OPTIONS.items() if name in entries}
        if found := re.search(r"^- optimizer: Use (?:OptimizerNames\.)?(\w+)", text, re.M):
            values["optim"] = found[1].lower()
        if found := re.search(r"^base_model: (\S+)\s*$", text, re.M):
            values["model_name_or_path"] = found[1]
        tags = {tag.strip() for tag in _TAG.findall(text)}
        if "llama-factory" in tags:
            yield Fact(where=file.where(), name="framework", value="llamafactory")
            method = next((method for method in _METHODS if method in tags), None)
            values |= {"finetuning_type": method} if method else {}
        elif _TRL in tags:
            yield Fact(where=file.where(), name="framework", value=_TRL)
        stage = stage_of(text) or (
            next((_STAGE_OF_TAG[tag] for tag in sorted(tags & _STAGE_OF_TAG.keys())), None) if _TRL in tags else None
        )
        if stage is not None:
            values["stage"] = stage
        file.source.records = len(values)
        if values:
            yield ConfigSeen(where=file.where(), values=values, origin="model_card")
        for name, fact in (("num_devices", "world_size"), ("total_train_batch_size", "batch.total")):
            if entries.get(name, "").isdigit():
                yield Fact(where=file.where(), name=fact, value=int(entries[name]))
        for library, version in _VERSION.findall(text):
            yield Fact(where=file.where(), name=f"versions.{_VERSIONS[library]}", value=version)
        yield Fact(where=file.where(), name="run.completed", value=True)
