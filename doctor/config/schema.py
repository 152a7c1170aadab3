"""The JSON Schema of LLaMA-Factory's training YAML, for editors: options, types, values and advice of one version (draft 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctor.config import knowledge, versions
from doctor.config.option_facts import SWITCHES, guide_words, help_of
from doctor.config.options import choices_of, table

_JSON = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "list": "array", "dict": "object", "null": "null"}
"""Type word of an option -> JSON Schema's."""

RANGES: dict[str, dict[str, float]] = {
    # rules/config/number-out-of-range.yaml
    "cutoff_len": {"minimum": 1}, "per_device_train_batch_size": {"minimum": 1}, "gradient_accumulation_steps": {"minimum": 1},
    "lora_rank": {"minimum": 1}, "lora_dropout": {"minimum": 0, "exclusiveMaximum": 1}, "learning_rate": {"minimum": 0},
    "micro_batch_size": {"minimum": 1},
}  # fmt: skip
"""Ranges of numbers that are sure to fail outside."""

_UNCHECKED = ("quantization_method", "rope_scaling", "fsdp", "flash_attn")
"""Options with choices of which LLaMA-Factory takes other spellings too, or that a rule judges by version."""


def schema(version: str, lang: str = "en") -> dict[str, Any]:
    """The schema for one version of LLaMA-Factory (as `knowledge.releases` names it), with descriptions in `lang` where there are."""
    definitions = {"train": _train(version, lang), "eval": _evaluation(version), "v1": _v1(version)}
    has_v1 = bool(knowledge.names_at("v1", version))
    v1 = {"required": ["model"], "not": {"required": ["model_name_or_path"]}}
    train: dict[str, Any] = {
        "if": {"required": ["task"]},
        "then": {"$ref": "#/definitions/eval"},
        "else": {"$ref": "#/definitions/train"},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"Training configuration of LLaMA-Factory ({knowledge.shown(version)})",
        "type": "object",
        **({"if": v1, "then": {"$ref": "#/definitions/v1"}, "else": train} if has_v1 else train),
        "definitions": definitions if has_v1 else {name: part for name, part in definitions.items() if name != "v1"},
    }


def _train(version: str, lang: str) -> dict[str, Any]:
    packages = versions.versions_of({"versions.llamafactory": version})
    properties = {}
    for name, option in table().items():
        if option.exists_in(packages):
            entry = {"type": option.type, "default": option.default}
            choices = choices_of(name, packages) if name not in _UNCHECKED else None
            if name == "template":
                choices = sorted(knowledge.names_at("templates", version))
            properties[name] = _property(name, entry | ({"choices": choices} if choices else {}), _told(name, lang))
    for trainer, switch in knowledge.MEGATRON.items():
        for name, changes in knowledge.options_of(trainer).items():
            entry = knowledge.at(changes, version)
            if entry is not None and name not in properties:
                properties[name] = _property(name, entry, f"{switch}: {help_of(name, trainer) or name}")
    for name, entry in knowledge.entries("infer", version):
        properties.setdefault(name, _property(name, entry, help_of(name, "infer")))
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _evaluation(version: str) -> dict[str, Any]:
    packages = versions.versions_of({"versions.llamafactory": version})
    shared = {name for name, option in table().items() if option.exists_in(packages)}
    properties = {name: _property(name, entry, help_of(name, "eval")) for name, entry in knowledge.entries("eval", version)}
    return {"type": "object", "properties": {**{name: {} for name in sorted(shared)}, **properties}, "additionalProperties": False}


def _v1(version: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, entry in knowledge.entries("v1", version):
        told = f"{SWITCHES['v1']}: {help_of(name, 'v1') or name}"
        properties[name] = _plugin(name, told, version) if name.endswith("_config") else _property(name, entry, told)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _plugin(option: str, told: str, version: str) -> dict[str, Any]:
    """The settings of a v1 plugin, by its `name`; a kernel's name may be several, separated by commas."""
    plugins = {name.partition("/")[2]: entry for name, entry in knowledge.entries("v1_plugins", version) if name.startswith(f"{option}/")}
    if option == "kernel_config":
        return {"description": told, "type": ["object", "null"], "required": ["name"], "properties": {"name": {"type": "string"}}}
    cases = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {
                "properties": {"name": {}, **{key: _property(key, part, None) for key, part in entry.items()}},
                "additionalProperties": False,
            },
        }
        for name, entry in plugins.items()
        if "loose" not in entry
    ]
    name = {"type": "string", **({"enum": sorted(plugins)} if plugins else {})}
    return {
        "description": told,
        "type": ["object", "null"],
        "required": ["name"],
        "properties": {"name": name},
        **({"allOf": cases} if cases else {}),
    }


def _property(name: str, entry: Mapping[str, Any], told: str | None) -> dict[str, Any]:
    words = entry["type"].split("|")
    out: dict[str, Any] = {"description": told} if told else {}
    if not entry.get("computed") and entry.get("default") not in (None, "", [], {}):
        out["default"] = entry["default"]
    if entry.get("choices"):
        return out | {"enum": [*entry["choices"], *([None] if "null" in words else [])]}
    if "any" not in words:
        kinds = [_JSON[word] for word in words] + (["array"] if name in _ALSO_LISTS and "list" not in words else [])
        out["type"] = kinds[0] if len(kinds) == 1 else kinds
    return out | RANGES.get(name, {})


_ALSO_LISTS = ("dataset", "eval_dataset", "lora_target", "additional_target", "freeze_trainable_modules", "adapter_name_or_path",
               "media_dir", "add_tokens", "add_special_tokens", "freeze_extra_modules", "galore_target", "apollo_target")  # fmt: skip
"""Options with names separated by commas: LLaMA-Factory splits texts only, and takes a list as it is (hparams, split_arg)."""


def _told(name: str, lang: str) -> str | None:
    """LLaMA-Factory's help text and the guide's word."""
    word = guide_words().get(name)
    advice = [word.advice.get(lang), *([word.today.get(lang)] if word.today else [])] if word else []
    return "\n\n".join(part for part in [help_of(name), " ".join(advice)] if part) or None
