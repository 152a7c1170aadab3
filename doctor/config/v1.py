"""Configs of LLaMA-Factory's v1 trainer (USE_V1=1): what it refuses, by the options and plugins of its versions."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from doctor.config import knowledge
from doctor.config.values import as_int
from doctor.config.versions import assumed, possible

Kind = Literal["unknown", "ignored", "value", "conflict", "elsewhere"]

FROM_V0 = {
    "model_name_or_path": "model", "dataset": "train_dataset", "per_device_train_batch_size": "micro_batch_size",
    "finetuning_type": "peft_config", "lora_rank": "peft_config.r", "lora_alpha": "peft_config.lora_alpha",
    "lora_target": "peft_config.target_modules", "lora_dropout": "peft_config.lora_dropout", "deepspeed": "dist_config",
    "quantization_bit": "quant_config.quantization_bit", "optim": "optim_config", "lr_scheduler_type": "lr_scheduler_config",
    "gradient_accumulation_steps": "global_batch_size", "enable_liger_kernel": "kernel_config",
    "gradient_checkpointing": "enable_activation_checkpointing", "disable_gradient_checkpointing": "enable_activation_checkpointing",
}  # fmt: skip
"""v0's name -> v1's for the same thing."""

ALWAYS = {"kernel_config": ("auto",)}
"""Plugin names that are no registered plugin (kernels/interface.py)."""

_SIMILAR = 0.7
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (int, float), "str": (str,), "list": (list,), "dict": (dict,), "null": (type(None),),
}  # fmt: skip


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: `key` is the path of the setting (`peft_config.r`), `facts` what the rules say of it."""

    kind: Kind
    key: str
    given: Any
    facts: Mapping[str, Any] = {}


def problems(values: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Problem]:
    """Everything wrong with a v1 config, for the versions that the run may have (those of them that have a v1 trainer)."""
    with_v1 = [version for version in possible(facts) if knowledge.names_at("v1", version)]
    judge = _Judge(with_v1 or [knowledge.newest()], assumed(facts))
    for key, given in values.items():
        yield from judge.option(str(key), given)
    yield from _conflicts(values)


class _Judge:
    """Judges settings for several versions; `here` is the assumed one."""

    def __init__(self, versions: list[str], here: str) -> None:
        self.versions = versions
        self.here = here if here in versions else versions[-1]

    def option(self, key: str, given: Any) -> Iterator[Problem]:
        changes = knowledge.options_of("v1").get(key, ())
        having = [version for version in self.versions if knowledge.at(changes, version)]
        if not having:
            yield Problem("unknown", key, given, self._told_of_unknown(key, changes))
            return
        if self.here not in having:
            yield Problem("elsewhere", key, given, {"since": knowledge.shown(having[0])})
        entry = knowledge.at(changes, self.here if self.here in having else having[-1])
        if key.endswith("_config"):
            yield from self._plugin(key, given)
        else:
            yield from _value(key, given, entry)

    def _told_of_unknown(self, key: str, changes: knowledge.Changes) -> Mapping[str, Any]:
        """What v0's option is called here; the last version that had it; else the nearest name."""
        until = next((version for version in reversed(knowledge.releases()) if knowledge.at(changes, version)), None)
        if key in FROM_V0 or until is not None:
            return {"suggested": FROM_V0.get(key), "until": until and knowledge.shown(until)}
        return {"similar": near(key, {name for version in self.versions for name in knowledge.names_at("v1", version)})}

    def _plugin(self, option: str, given: Any) -> Iterator[Problem]:
        if given is None:
            return
        if not isinstance(given, Mapping):
            yield Problem("value", option, given, {"wanted": "dict"})
            return
        if not isinstance(given.get("name"), str):
            yield Problem("conflict", option, given.get("name"), {"conflict": "plugin_name"})
            return
        legal = {name for version in self.versions for name in self._names(option, version)} | set(ALWAYS.get(option, ()))
        for name in given["name"].split(",") if option == "kernel_config" else [given["name"]]:
            if name.strip() not in legal:
                shown = ", ".join(sorted(legal)) or None
                yield Problem("value", f"{option}.name", name.strip(), {"legal": shown, "similar": near(name.strip(), legal)})
            else:
                yield from self._settings(option, name.strip(), given)

    def _names(self, option: str, version: str) -> Iterator[str]:
        yield from (name.partition("/")[2] for name, _ in knowledge.entries("v1_plugins", version) if name.startswith(f"{option}/"))

    def _settings(self, option: str, name: str, given: Mapping[str, Any]) -> Iterator[Problem]:
        """The settings of one plugin; a plugin of which only the names are known is not checked further."""
        changes = knowledge.options_of("v1_plugins").get(f"{option}/{name}", ())
        known = [entry for version in self.versions if (entry := knowledge.at(changes, version)) is not None]
        if not known or option == "kernel_config":
            return
        names = {key for entry in known for key in entry.get("loose", entry)}
        strict = "loose" not in known[-1]
        for key, value in given.items():
            if key != "name" and key not in names and names:
                told = {"similar": near(str(key), names, f"{option}."), "plugin": name}
                yield Problem("unknown" if strict else "ignored", f"{option}.{key}", value, told)
            elif isinstance(entry := known[-1].get(key), Mapping):
                yield from _value(f"{option}.{key}", value, entry)


def _value(key: str, given: Any, entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Whether a value is of the option's type and among its choices."""
    legal, words = entry.get("choices"), entry["type"].split("|")
    if legal and given is not None and given not in legal:
        yield Problem("value", key, given, {"legal": ", ".join(map(str, legal)), "similar": near(str(given), set(map(str, legal)))})
    elif "any" not in words and not _fits(given, words):
        yield Problem("value", key, given, {"wanted": entry["type"].replace("|", ", ")})


def _fits(given: Any, words: list[str]) -> bool:
    """Whether a value has one of the types; true is no number, and a text is none either."""
    if isinstance(given, bool):
        return "bool" in words
    return any(isinstance(given, _TYPES[word]) for word in words) or (isinstance(given, float) and given.is_integer() and "int" in words)


def _conflicts(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Settings that exclude each other: v1/config/training_args.py, core/base_trainer.py, core/model_engine.py, core/utils/batching.py."""

    def name(option: str) -> Any:
        part = values.get(option)
        return part.get("name") if isinstance(part, Mapping) else None

    strategy, steps = values.get("batching_strategy"), as_int(values.get("max_steps"), 0)
    flash = values.get("flash_attn", "sdpa") == "flash_attention_2"
    sizes = [as_int(values.get(key), 0) for key in ("global_batch_size", "micro_batch_size")]
    checks = {
        "batching_strategy": ("dynamic_steps", strategy == "dynamic_batching" and steps <= 0),
        "save_epochs": ("dynamic_epochs", strategy == "dynamic_batching" and values.get("save_epochs") is not None),
        "flash_attn": ("padding_free", strategy == "padding_free" and not flash),
        "cp_size": ("cp_flash", as_int(values.get("cp_size"), 1) > 1 and not flash),
        "dist_config": ("cp_deepspeed", as_int(values.get("cp_size"), 1) > 1 and name("dist_config") == "deepspeed"),
        "init_config": ("lora_meta", name("peft_config") == "lora" and name("init_config") == "init_on_meta"),
        "global_batch_size": ("batch_sizes", min(sizes) > 0 and sizes[0] % sizes[1] != 0),
        "dist_config.config_file": ("deepspeed_file", name("dist_config") == "deepspeed" and not values["dist_config"].get("config_file")),
    }
    for key, (conflict, holds) in checks.items():
        if holds:
            yield Problem("conflict", key, values.get(key), {"conflict": conflict})
    bits = values.get("quant_config")
    if isinstance(bits, Mapping) and bits.get("quantization_bit") not in (None, 4, 8):
        yield Problem("value", "quant_config.quantization_bit", bits["quantization_bit"], {"legal": "4, 8"})


def near(name: str, known: set[str], prefix: str = "") -> str | None:
    """The known name whose spelling is nearest."""
    found = difflib.get_close_matches(name.lower().replace("-", "_"), sorted(known), n=1, cutoff=_SIMILAR)
    return f"{prefix}{found[0]}" if found else None
