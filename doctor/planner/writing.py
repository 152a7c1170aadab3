"""The chosen changes as what a user can take home: patched YAML, diff, key=value overrides, the command to run next, notes."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from doctor.config import yaml_edit
from doctor.config.deepspeed import deepspeed_settings
from doctor.config.options import table
from doctor.config.patch import Change
from doctor.config.yaml_edit import Edit
from doctor.planner.types import ConfigText
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from doctor.words import planner_reasons

NEIGHBOURS = {
    "gradient_accumulation_steps": ("per_device_train_batch_size",),
    "per_device_train_batch_size": ("gradient_accumulation_steps",),
    "quantization_method": ("quantization_bit",),
    "pref_loss": ("pref_beta", "stage"),
    "lora_target": ("finetuning_type",),
    "lora_alpha": ("lora_rank",),
    "warmup_steps": ("warmup_ratio", "lr_scheduler_type"),
    "warmup_ratio": ("warmup_steps", "lr_scheduler_type"),
    "eval_steps": ("eval_strategy", "per_device_eval_batch_size"),
    "eval_strategy": ("val_size", "per_device_eval_batch_size"),
    "val_size": ("eval_dataset", "per_device_eval_batch_size", "eval_strategy"),
    "deepspeed": ("finetuning_type",),
    "output_dir": ("logging_steps", "save_steps"),
}
"""Beside which key a new one reads best; else behind the last key of its group (`_GROUPS`)."""
_SAVING = ("output_dir", "logging_steps", "save_steps", "save_strategy", "plot_loss", "overwrite_output_dir", "save_only_model")
_EVALUATING = ("val_size", "per_device_eval_batch_size", "eval_strategy", "eval_steps", "eval_dataset", "do_eval")
DATA_KEYS = ("cutoff_len", "packing", "neat_packing", "template", "max_samples", "dataset", "train_on_prompt", "mask_history", "stage")
"""What is baked into a tokenised dataset (data/loader.py: with `tokenized_path` these are not read again)."""


def edits(changes: Iterable[Change], because: Mapping[str, str], text: str) -> list[Edit]:
    """The config changes as edits of this YAML; keys to remove that it does not hold are left out."""
    given = yaml_edit.load(text)
    out = []
    for change in changes:
        if change.target != "config" or (change.op == "unset" and change.key not in given):
            continue
        near = _near(change.key, given)
        out.append(Edit(change.key, change.new, change.op == "unset", near, f"lfdoctor: {because.get(change.key, '')}"))
    return out


def _near(key: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    beside = tuple(other for other in NEIGHBOURS.get(key, ()) if other in given)
    if beside:
        return beside[:1]
    for block in (_SAVING, _EVALUATING):
        if key in block or (block is _SAVING and key.startswith(("save_", "logging_"))):
            return tuple(other for other in block if other in given)
    option = table().get(key)
    saved = {*_SAVING, *_EVALUATING}
    same = [other for other in given if option and other not in saved and (known := table().get(other)) and known.group == option.group]
    return tuple(same)


def patched_text(source: ConfigText, changes: Sequence[Change], because: Mapping[str, str]) -> tuple[str | None, list[Text]]:
    """The whole patched text, None where it cannot be edited; and what to say about it."""
    if source.path.lower().endswith(".json"):
        plain = [Edit(one.key, one.new, one.op == "unset") for one in changes if one.target == "config"]
        return yaml_edit.edit_json(source.text, plain), [planner_reasons.JSON_CONFIG]
    try:
        out = yaml_edit.edit(source.text, edits(changes, because, source.text))
    except yaml_edit.NotReadable:
        out = None
    return out, [] if out is not None else [planner_reasons.NOT_EDITED]


def unified_diff(path: str, old: str, new: str) -> str:
    """A unified diff, file names without folders."""
    name = PurePath(path).name or "config.yaml"
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name} (patched)", n=2)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def overrides(changes: Iterable[Change]) -> tuple[str, ...]:
    """`key=value` words behind the YAML on the command line (LLaMA-Factory 0.9.3 on); a removed key is given its default."""
    out = {}
    for change in changes:
        if change.target in ("config", "command"):
            out[change.key] = change.new if change.op == "set" else _default(change.key)
    return tuple(f"{key}={yaml_edit.dump(value)}" for key, value in out.items())


def _default(key: str) -> Any:
    option = table().get(key)
    return option.default if option else None


def command(changes: Sequence[Change], config: Mapping[str, Any], source: ConfigText | None, words: Sequence[str], edited: bool) -> str:
    """The command to run next, with the environment it needs."""
    env = {change.key: str(change.new) for change in changes if change.target == "env"}
    if config.get("deepspeed") and "FORCE_TORCHRUN" not in env:
        env = {"FORCE_TORCHRUN": "1", **env}  # hparams/parser.py: DeepSpeed without torchrun is an error
    path = source.path if source else "your-config.yaml"
    if edited:
        found = re.fullmatch(r"(.*?)(-patched)?(\.\w+)?", PurePath(path).name)
        path = f"{found[1] if found else path}-patched{(found[3] if found else None) or '.yaml'}"
    parts = [f"{name}={shlex.quote(value)}" for name, value in env.items()]
    beside = overrides(change for change in changes if change.target == "command") if edited else words
    parts += ["llamafactory-cli", "train", shlex.quote(path), *map(shlex.quote, beside)]
    return " ".join(parts)


def install_note(remedies: Iterable[Remedy]) -> list[Text]:
    """One note for all packages that the chosen remedies need."""
    packages = list(dict.fromkeys(package for remedy in remedies for package in remedy.requires))
    if not packages:
        return []
    words = " ".join(packages)
    return [planner_reasons.install(f"{words} --no-build-isolation" if "flash-attn" in packages else words)]


def deepspeed_notes(changes: Iterable[Change], config: Mapping[str, Any]) -> list[Text]:
    """Changes in the file that `deepspeed` names, which is not ours to rewrite."""
    path = config.get("deepspeed")
    where = str(path) if path and deepspeed_settings(path) is None else "the DeepSpeed config"
    return [planner_reasons.deepspeed_file(where, one.key, yaml_edit.dump(one.new)) for one in changes if one.target == "deepspeed"]
