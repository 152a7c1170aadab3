"""adapter_config.json of peft: rank, alpha, dropout, targets and base model of a LoRA run whose YAML is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.core.events import ConfigSeen, Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.documents import json_object
from doctor.readers.file import File

_OPTIONS = {
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_dora": "use_dora",
    "use_rslora": "use_rslora",
}


class AdapterConfig(ReaderBase):
    """Also the copies in checkpoints, which are the same."""

    kind = "adapter_config"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name == "adapter_config.json"

    def configs(self, file: File) -> Iterator[Event]:
        values = json_object(file, 1 << 20)
        if values is None:
            return
        kind = str(values.get("peft_type", "LORA")).upper()
        out: dict[str, Any] = {"finetuning_type": "oft" if kind == "OFT" else "lora"}
        if kind == "LORA":
            out |= {option: values[key] for key, option in _OPTIONS.items() if values.get(key) is not None}
        targets = values.get("target_modules")
        if isinstance(targets, list) and targets:
            out["lora_target" if kind != "OFT" else "oft_target"] = ",".join(sorted(map(str, targets)))
        if isinstance(values.get("base_model_name_or_path"), str):
            out["model_name_or_path"] = values["base_model_name_or_path"]
        file.source.records = len(out)
        if isinstance(task := values.get("task_type"), str):
            yield Fact(where=file.where(), name="model.task", value=task)
        yield ConfigSeen(where=file.where(), values=out, origin="adapter")
