"""The user's own training configuration: YAML or JSON for `llamafactory-cli`, and what the web UI saves with a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.config import yaml_edit
from doctor.config.recognise import shape_by_names
from doctor.core.events import ConfigSeen, Event, Fact, Where
from doctor.readers.base import ReaderBase
from doctor.readers.file import File
from doctor.readers.values import option_value

_KEY = re.compile(rb"""^([ \t]*)["']?([A-Za-z_][\w.]*)["']?[ \t]*:(?=[\s"'\[{]|\S)""", re.M)
_AT_MARGIN = re.compile(r"""^(?:["']?|[ \t{]*")([A-Za-z_]\w*)["']?[ \t]*:""", re.M)
_ENTRY = re.compile(r"\s*([A-Za-z_]\w*)\s*:\s+(\S.*?)\s*$")
_BOARD_KEY = re.compile(r"^(?:top|train)\.\w+[ \t]*:", re.M)
_INLINE = re.compile(r"(?:^|,\s*)([a-z_]\w*)\s*:\s+([^,()]+?)(?=\s*(?:,\s*[a-z_]\w*\s*:|\(|$))")
_BOARD = {
    "batch_size": "per_device_train_batch_size", "neftune_alpha": "neftune_noise_alpha", "model_path": "model_name_or_path",
    **{name: name for name in (
        "learning_rate", "num_train_epochs", "gradient_accumulation_steps", "cutoff_len", "lr_scheduler_type", "max_grad_norm",
        "warmup_steps", "logging_steps", "save_steps", "packing", "optim", "val_size", "neat_packing", "dataset", "dataset_dir",
        "max_samples",
        "finetuning_type", "template", "rope_scaling", "train_on_prompt", "mask_history", "resize_vocab", "use_llama_pro",
        "enable_thinking", "report_to", "use_galore", "use_apollo", "use_badam", "use_swanlab", "quantization_bit",
    )},
}  # fmt: skip
"""Names of llamaboard_config.yaml (after `top.` or `train.`) -> options (webui/runner.py, _parse_train_args)."""
_BOARD_LORA = frozenset({"lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_rslora", "use_dora", "create_new_adapter"})
"""Fields that the web UI passes on for LoRA only."""
_BOARD_CHOICES: dict[tuple[str, str], dict[str, Any]] = {
    **{("train.compute_type", kind): {kind: True} for kind in ("fp16", "bf16", "pure_bf16")},
    ("top.booster", "flashattn2"): {"flash_attn": "fa2"},
    ("top.booster", "unsloth"): {"use_unsloth": True},
    ("top.booster", "liger_kernel"): {"enable_liger_kernel": True},
}
"""A field and its choice -> the options that the web UI sets for it."""


class ConfigYaml(ReaderBase):
    """Of broken YAML, the readable lines. YAML of other programs and lists of data sets are not claimed."""

    kind = "config"

    def claims(self, path: Path, head: bytes) -> bool:
        if path.suffix.lower() not in (".yaml", ".yml", ".json") or path.name == "dataset_info.json" or b"wandb_version" in head:
            return False
        if path.name == "llamaboard_config.yaml":
            return True
        if head.count(b"\ntop.") + head.startswith(b"top.") and b"\ntrain." in head:  # the web UI's settings under another name
            return True
        return shape_by_names(_top_level(head) or _json_keys(path, head)) is not None

    def configs(self, file: File) -> Iterator[Event]:
        text = file.text(1 << 20)
        if text is None:
            return
        values = self._values(text, file)
        if not values:
            file.source.problem("no options in it")
            return
        file.source.records = len(values)
        if shape_by_names(values.keys()) == "v1":
            yield Fact(where=file.where(), name="llamafactory.trainer", value="v1")
            yield Fact(where=file.where(), name="v1.config", value={"values": values, "lines": key_lines(text)})
            return
        for key, line in yaml_edit.duplicate_keys(text).items():
            yield Fact(where=file.where(line), name="config_duplicate_key", value=key)
        webui = file.path.name == "training_args.yaml" or is_board(text)
        if webui:  # only LLaMA-Factory's web UI writes these
            yield Fact(where=file.where(), name="framework", value="llamafactory")
        yield ConfigSeen(where=file.where(), values=values, origin="training_args" if webui else "yaml", lines=key_lines(text))
        if isinstance(values.get("deepspeed"), dict):
            yield Fact(where=file.where(), name="deepspeed.config", value=values["deepspeed"])

    def _values(self, text: str, file: File) -> dict[str, Any]:
        try:
            values = yaml_edit.load(text)
        except yaml_edit.NotReadable as error:
            file.source.problem(f"not valid YAML, read line by line: {error}")
            return by_line(text)
        return _board(values) if is_board(text) else values


def key_lines(text: str) -> dict[str, int]:
    """Key -> its 1-based line, of unindented keys (in JSON: of all); of a duplicate key the last."""
    return {found[1]: text.count("\n", 0, found.start(1)) + 1 for found in _AT_MARGIN.finditer(text)}


def is_yaml(text: str) -> bool:
    """Whether the whole text is valid YAML (only then can it be patched)."""
    try:
        return bool(yaml_edit.load(text))
    except yaml_edit.NotReadable:
        return False


def is_board(text: str) -> bool:
    """Whether the text is what the web UI saves of its fields, under whatever name: `llamafactory-cli` does not take it."""
    return _BOARD_KEY.search(text) is not None


def facts_of_web_ui(path: Path) -> Iterator[Fact]:
    """For `check`: the fact config_of_web_ui where a file holds the web UI's settings."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.suffix.lower() in (".yaml", ".yml") else ""
    except OSError:
        return
    if is_board(text):
        yield Fact(where=Where(str(path)), name="config_of_web_ui", value=path.name)


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


def _top_level(head: bytes) -> set[str]:
    """Names at the smallest indentation of the file's beginning."""
    found = [(len(indent), key.decode("ascii", "replace")) for indent, key in _KEY.findall(head)]
    margin = min((indent for indent, _ in found), default=0)
    return {key for indent, key in found if indent == margin}


def _json_keys(path: Path, head: bytes) -> set[str]:
    if path.suffix.lower() != ".json":
        return set()
    return {key.decode() for key in re.findall(rb'"([A-Za-z_]\w*)"\s*:', head)}


def _board(values: dict[str, Any]) -> dict[str, Any]:
    """llamaboard_config.yaml in option names (the web UI keeps numbers as text)."""
    out: dict[str, Any] = {}
    lora = values.get("top.finetuning_type", "lora") == "lora"
    for name, value in values.items():
        field = name.partition(".")[2]
        option = field if lora and field in _BOARD_LORA else _BOARD.get(field)
        if option and value not in (None, "", [], "none"):
            out[option] = option_value(value) if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list) else value
        out |= _BOARD_CHOICES.get((name, str(value)), {})
    out |= _extra(values.get("train.extra_args"))
    stage = str(values.get("train.training_stage", ""))
    short = next((short for word, short in _STAGES.items() if word in stage), None)
    return {**out, "stage": short} if short else out


def _extra(text: Any) -> dict[str, Any]:
    """The options of the web UI's field "Extra arguments", a JSON object."""
    try:
        given = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


_STAGES = {"Supervised": "sft", "Reward": "rm", "PPO": "ppo", "DPO": "dpo", "KTO": "kto", "Pre-Training": "pt"}
