"""The user's own training configuration: YAML or JSON for `llamafactory-cli`, and what the web UI saves with a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.config import yaml_edit
from doctor.core.events import ConfigSeen, Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.file import File
from doctor.readers.values import option_value

_CERTAIN = frozenset(
    {
        "model_name_or_path", "finetuning_type", "stage", "cutoff_len", "lora_target", "lora_rank", "quantization_bit", "pref_loss",
        "pref_beta", "do_train", "template", "dataset_dir", "adapter_name_or_path", "export_dir", "flash_attn", "neat_packing",
        "checkpoint_dir", "source_prefix", "quantization_method",
    }
)  # fmt: skip
_LIKELY = frozenset(
    {
        "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "learning_rate", "num_train_epochs",
        "output_dir", "dataset", "bf16", "fp16", "logging_steps", "save_steps", "eval_steps", "warmup_ratio", "warmup_steps",
        "lr_scheduler_type", "max_steps", "val_size", "eval_strategy", "deepspeed", "max_samples", "packing", "do_eval", "do_predict",
        "lora_alpha", "lora_dropout", "overwrite_output_dir", "report_to", "plot_loss", "optim", "preprocessing_num_workers", "streaming",
        "buffer_size", "predict_with_generate", "dataloader_num_workers", "trust_remote_code", "freeze_vision_tower",
        "resume_from_checkpoint", "max_source_length", "max_target_length", "accelerator_config", "max_grad_norm", "weight_decay",
    }
)  # fmt: skip
_V1 = frozenset(
    {
        "train_dataset", "peft_config", "kernel_config", "quant_config", "dist_config", "init_config", "model_class", "micro_batch_size",
        "global_batch_size",
    }
)  # fmt: skip
_KEY = re.compile(rb"""^[ \t]*["']?([A-Za-z_][\w.]*)["']?[ \t]*:(?=[\s"'\[{]|\S)""", re.M)
_AT_MARGIN = re.compile(r"""^(?:["']?|[ \t{]*")([A-Za-z_]\w*)["']?[ \t]*:""", re.M)
_ENTRY = re.compile(r"\s*([A-Za-z_]\w*)\s*:\s+(\S.*?)\s*$")
_INLINE = re.compile(r"(?:^|,\s*)([a-z_]\w*)\s*:\s+([^,()]+?)(?=\s*(?:,\s*[a-z_]\w*\s*:|\(|$))")
_BOARD = {
    "learning_rate": "learning_rate", "num_train_epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps", "cutoff_len": "cutoff_len", "lr_scheduler_type": "lr_scheduler_type",
    "max_grad_norm": "max_grad_norm", "warmup_steps": "warmup_steps", "logging_steps": "logging_steps", "save_steps": "save_steps",
    "lora_rank": "lora_rank", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "packing": "packing", "optim": "optim",
    "val_size": "val_size", "neat_packing": "neat_packing", "dataset": "dataset",
    "finetuning_type": "finetuning_type", "template": "template", "model_path": "model_name_or_path",
}  # fmt: skip
"""Names of llamaboard_config.yaml (after `top.` or `train.`) -> options."""


class ConfigYaml(ReaderBase):
    """Of broken YAML, the readable lines. YAML of other programs and lists of data sets are not claimed."""

    kind = "config"

    def claims(self, path: Path, head: bytes) -> bool:
        if path.suffix.lower() not in (".yaml", ".yml", ".json") or path.name == "dataset_info.json" or b"wandb_version" in head:
            return False
        if path.name == "llamaboard_config.yaml":
            return True
        return _looks_like_training({key.decode("ascii", "replace") for key in _KEY.findall(head)} | _json_keys(path, head))

    def configs(self, file: File) -> Iterator[Event]:
        text = file.text(1 << 20)
        if text is None:
            return
        values = self._values(text, file)
        if not values:
            file.source.problem("no options in it")
            return
        file.source.records = len(values)
        if "model_name_or_path" not in values and values.keys() & _V1 and "model" in values:
            yield Fact(where=file.where(), name="llamafactory.trainer", value="v1")
            return
        for key, line in yaml_edit.duplicate_keys(text).items():
            yield Fact(where=file.where(line), name="config_duplicate_key", value=key)
        webui = file.path.name in ("training_args.yaml", "llamaboard_config.yaml")
        yield ConfigSeen(where=file.where(), values=values, origin="training_args" if webui else "yaml", lines=key_lines(text))
        if isinstance(values.get("deepspeed"), dict):
            yield Fact(where=file.where(), name="deepspeed.config", value=values["deepspeed"])

    def _values(self, text: str, file: File) -> dict[str, Any]:
        try:
            values = yaml_edit.load(text)
        except yaml_edit.NotReadable as error:
            file.source.problem(f"not valid YAML, read line by line: {error}")
            return by_line(text)
        return _board(values) if any(key.startswith(("top.", "train.")) for key in values) else values


def key_lines(text: str) -> dict[str, int]:
    """Key -> its 1-based line, of unindented keys (in JSON: of all); of a duplicate key the last."""
    return {found[1]: text.count("\n", 0, found.start(1)) + 1 for found in _AT_MARGIN.finditer(text)}


def is_yaml(text: str) -> bool:
    """Whether the whole text is valid YAML (only then can it be patched)."""
    try:
        return bool(yaml_edit.load(text))
    except yaml_edit.NotReadable:
        return False


def by_line(text: str) -> dict[str, Any]:
    """Options of a text that is no YAML as a whole: its `key: value` lines, and `key: value, key: value` lists."""
    values: dict[str, Any] = {}
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        found = _ENTRY.match(line)
        if found and not re.search(r",\s*[a-z_]\w*\s*:", found[2]):
            values.setdefault(found[1], option_value(re.sub(r"\s+#.*$", "", found[2])))
            continue
        for name, value in _INLINE.findall(line.strip()):
            values.setdefault(name, option_value(value.strip()))
    return values


def _looks_like_training(keys: set[str]) -> bool:
    return len(keys & _CERTAIN) + len(keys & _LIKELY) >= 2 or bool(keys & {"finetuning_type", "cutoff_len"}) or len(keys & _V1) >= 2


def _json_keys(path: Path, head: bytes) -> set[str]:
    if path.suffix.lower() != ".json":
        return set()
    return {key.decode() for key in re.findall(rb'"([A-Za-z_]\w*)"\s*:', head)}


def _board(values: dict[str, Any]) -> dict[str, Any]:
    """llamaboard_config.yaml in option names (the web UI keeps numbers as text)."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        option = _BOARD.get(name.partition(".")[2])
        if option and value not in (None, "", []):
            out[option] = option_value(value) if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list) else value
    stage = str(values.get("train.training_stage", ""))
    short = next((short for word, short in _STAGES.items() if word in stage), None)
    return {**out, "stage": short} if short else out


_STAGES = {"Supervised": "sft", "Reward": "rm", "PPO": "ppo", "DPO": "dpo", "KTO": "kto", "Pre-Training": "pt"}
