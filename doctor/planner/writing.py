"""The chosen changes written out: the patched YAML, its diff, and notes."""

from __future__ import annotations

import difflib
import re
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
from doctor.words import catalogue

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
"""New key -> the keys after which it reads best; without one, after the last key of its group of options."""
_SAVING = ("output_dir", "logging_steps", "save_steps", "save_strategy", "plot_loss", "overwrite_output_dir", "save_only_model")
_EVALUATING = ("val_size", "per_device_eval_batch_size", "eval_strategy", "eval_steps", "eval_dataset", "do_eval")
DATA_KEYS = ("cutoff_len", "packing", "neat_packing", "template", "max_samples", "dataset", "train_on_prompt", "mask_history", "stage")
"""Options baked into a tokenized dataset (LLaMA-Factory data/loader.py: with `tokenized_path` they are not read again)."""


def edits(changes: Iterable[Change], because: Mapping[str, str], text: str) -> list[Edit]:
    """The config changes as edits of this YAML; a key to remove that is not in it is left out."""
    given = yaml_edit.load(text)
    out = []
    for change in changes:
        if change.target != "config" or (change.op == "unset" and change.key not in given):
            continue
        near = _near(change.key, given)
        out.append(Edit(change.key, change.new, change.op == "unset", near, f"lfdoctor: {because.get(change.key, '')}"))
    return out


def _near(key: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    neighbours = tuple(other for other in NEIGHBOURS.get(key, ()) if other in given)
    if neighbours:
        return neighbours[:1]
    for block in (_SAVING, _EVALUATING):
        if key in block or (block is _SAVING and key.startswith(("save_", "logging_"))):
            return tuple(other for other in block if other in given)
    option = table().get(key)
    saved = {*_SAVING, *_EVALUATING}
    same = [other for other in given if option and other not in saved and (known := table().get(other)) and known.group == option.group]
    return tuple(same)


def patched_text(source: ConfigText, changes: Sequence[Change], because: Mapping[str, str]) -> tuple[str | None, list[Text]]:
    """The whole patched text (None if it cannot be edited safely), and notes about it."""
    if source.path.lower().endswith(".json"):
        plain = [Edit(change.key, change.new, change.op == "unset") for change in changes if change.target == "config"]
        return yaml_edit.edit_json(source.text, plain), [catalogue.text("planner.json_config")]
    try:
        out = yaml_edit.edit(source.text, edits(changes, because, source.text))
    except yaml_edit.NotReadable:
        out = None
    return out, [] if out is not None else [catalogue.text("planner.not_edited")]


def unified_diff(path: str, old: str, new: str) -> str:
    """A unified diff, file names without folders."""
    name = PurePath(path).name or "config.yaml"
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name} (patched)", n=2)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def patched_name(path: str) -> str:
    """The file name of a config's patched copy: `train.yaml` -> `train-patched.yaml`, and no second `-patched`."""
    found = re.fullmatch(r"(.*?)(-patched)?(\.\w+)?", PurePath(path).name)
    return f"{found[1] if found else path}-patched{(found[3] if found else None) or '.yaml'}"


def packages(remedies: Iterable[Remedy]) -> tuple[str, ...]:
    """What the chosen remedies need installed, as words for pip; flash-attn builds against the torch that is installed."""
    names = list(dict.fromkeys(package for remedy in remedies for package in remedy.requires))
    return (*names, "--no-build-isolation") if "flash-attn" in names else tuple(names)


def deepspeed_notes(changes: Iterable[Change], config: Mapping[str, Any]) -> list[Text]:
    """Changes in the file that `deepspeed` names: described, not written, for other runs use it too."""
    path = config.get("deepspeed")
    where = str(path) if path and deepspeed_settings(path) is None else catalogue.text("planner.deepspeed_config")
    files = [change for change in changes if change.target == "deepspeed"]
    return [catalogue.text("planner.deepspeed_file", path=where, key=change.key, value=yaml_edit.dump(change.new)) for change in files]
