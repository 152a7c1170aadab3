"""LLaMA-Factory's options: names, types, defaults, choices; their effective values; the scope of a rule's conditions."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Container, Mapping
from typing import Any, Literal

import msgspec

from doctor.config import deepspeed, knowledge, versions
from doctor.config.values import OLDER_NAMES, as_float
from doctor.config.versions import Version, versions_of
from doctor.core.events import MAX_INTEGER
from doctor.core.run import Run
from doctor.rulebook.conditions import Scope
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder

MIN_SIMILARITY = 0.7
"""difflib ratio of a misspelt option: learning_rte 0.96, lora_ranks 0.95; unrelated options of equal length are below 0.65."""


class Lifetime(msgspec.Struct, frozen=True):
    """Versions of the package in `of` that have an option: `since` and `until` are the first and the last, None for no bound."""

    of: Literal["llamafactory", "transformers"]
    since: str | None = None
    until: str | None = None

    def holds(self, packages: Mapping[str, Version]) -> bool:
        """Whether the installed version is one of them; `packages` as from `versions_of`."""
        installed = packages[self.of]
        return not (self.since and installed < versions.parse(self.since)) and not (self.until and installed > versions.parse(self.until))


class Option(msgspec.Struct, frozen=True):
    """One option. `since` and `until` are versions of the package in `of`; `was` maps the last version with another default to it.
    `also` are the versions of the other package that have it too.

    `type` is one or more of bool, int, float, str, list, dict, null, joined by `|`. `group` is the dataclass that holds it, or `gone`
    for an option that the newest version lacks; `use` then names its successor.
    """

    group: Literal["model", "data", "training", "finetuning", "generating", "gone"]
    type: str
    default: Any
    of: Literal["llamafactory", "transformers"]
    choices: list[Any] | None = None
    since: str | None = None
    until: str | None = None
    was: dict[str, Any] = {}
    use: str | None = None
    also: Lifetime | None = None

    def exists_in(self, packages: Mapping[str, Version]) -> bool:
        """Whether the installed packages know it; `packages` as from `versions_of`."""
        lifetimes = (Lifetime(self.of, self.since, self.until), self.also)
        return any(lifetime.holds(packages) for lifetime in lifetimes if lifetime)


@functools.cache
def table() -> Mapping[str, Option]:
    """Every option of LLaMA-Factory 0.7 to main, by name (about 400; rules/options.yaml, which is JSON: 1 ms)."""
    raw = msgspec.json.decode((rules_folder() / "options.yaml").read_bytes())
    del raw["_about"]
    return convert(raw, dict[str, Option])


def is_own(key: str) -> bool:
    """Whether only LLaMA-Factory has the option: not those of generation, nor what it took over from transformers."""
    option = table().get(key)
    return option is not None and option.of == "llamafactory" and option.group != "generating" and not option.also


@functools.cache
def _defaults(llamafactory: Version, transformers: Version) -> dict[str, Any]:
    installed = {"llamafactory": llamafactory, "transformers": transformers}
    out = {}
    for name, option in table().items():
        if option.exists_in(installed):
            older = [value for until, value in option.was.items() if installed[option.of] <= versions.parse(until)]
            out[name] = older[0] if older else option.default
    return out


def effective(config: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every option's value as LLaMA-Factory would use it: the given one, else what the run printed, else the default of its version.

    Derived values: `zero_stage` (0..3, None if it cannot be known), `zero_offload`, `zero_overlap_comm`,
    `loads_reference_model`, `warmup_share` (part of the training, None where the number of steps is unknown), `saves_at_evaluations`
    (save_steps is a multiple of eval_steps) and `lora_alpha_over_rank`.
    An integer beyond 64 bits reads None: nothing can be computed of it.
    """
    facts = facts or {}
    installed = versions_of(facts)
    config = {name: None if isinstance(value, int) and abs(value) >= MAX_INTEGER else value for name, value in config.items()}
    values = {**_defaults(installed["llamafactory"], installed["transformers"]), **options_from_facts(facts), **config}
    values.update(
        {name: config[older] for name, older in OLDER_NAMES.items() if config.get(name) is None and config.get(older) is not None}
    )
    if values.get("lora_alpha") is None and isinstance(values.get("lora_rank"), int):
        values["lora_alpha"] = values["lora_rank"] * 2  # hparams/finetuning_args.py __post_init__
    if values.get("packing") is None:
        values["packing"] = values.get("stage") == "pt" or values.get("neat_packing") is True  # hparams/parser.py, data_args.py
    values.update(_zero(values.get("deepspeed"), facts))
    values["loads_reference_model"] = _loads_reference(values)
    values["warmup_share"] = _warmup_share(values, facts)
    values["saves_at_evaluations"] = _saves_at_evaluations(values)
    alpha, rank = as_float(values.get("lora_alpha"), 0.0), as_float(values.get("lora_rank"), 0.0)
    values["lora_alpha_over_rank"] = alpha / rank if alpha and rank else None
    return values


def choices_of(name: str, packages: Mapping[str, Version]) -> list[Any] | None:
    """The values that an option of the table takes in the installed versions; None for no such list."""
    option = table()[name]
    if packages[option.of] == versions.NEWEST[option.of] or not option.choices:
        return option.choices
    entry = versions.value_at(knowledge.option_history(option.of, name), packages[option.of])
    return (entry.get("choices") if isinstance(entry, dict) else None) or option.choices


def effective_batch_size(config: Mapping[str, Any], world_size: int = 1) -> int | None:
    """Samples per optimizer step: per device x accumulation x ranks (TF get_total_train_batch_size).

    None if a factor is not an int, or the product no 32-bit count of samples.
    """
    values = effective(config)
    parts = (values["per_device_train_batch_size"], values["gradient_accumulation_steps"], world_size)
    if any(isinstance(part, bool) or not isinstance(part, int) for part in parts):
        return None
    size = int(parts[0] * parts[1] * parts[2])
    return size if 0 < size < 1 << 31 else None


def suggestion(name: str, packages: Mapping[str, Version]) -> str | None:
    """The existing option whose spelling is nearest: a question to the writer (`did you mean`), never a reason to rename."""
    living = [other for other, known in table().items() if known.exists_in(packages)]
    close = difflib.get_close_matches(name.lower().replace("-", "_"), living, n=1, cutoff=MIN_SIMILARITY)
    return close[0] if close else None


_METHODS = {"lora": "lora", "dora": "lora", "full": "full", "freeze": "freeze", "oft": "oft"}
"""Fine-tuning methods as model/adapter.py prints them -> finetuning_type."""

_OPTIONS_OF_FACT = {
    "finetuning_method": ("finetuning_type",),
    "batch.per_device": ("per_device_train_batch_size",),
    "batch.accumulation": ("gradient_accumulation_steps",),
    "quantized.bits": ("quantization_bit",),
    "preprocessing.workers": ("preprocessing_num_workers",),
    "gradient_checkpointing": ("disable_gradient_checkpointing",),
    "compute_dtype": ("bf16", "fp16"),
}
"""Console fact -> the options whose values it reveals."""


def options_from_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Option values that can be derived from a console without a config."""
    out: dict[str, Any] = {}
    method = str(facts.get("finetuning_method", "")).lower()
    if method in _METHODS:
        out["finetuning_type"] = _METHODS[method]
    plain = ("batch.per_device", "batch.accumulation", "quantized.bits", "preprocessing.workers")
    out.update({_OPTIONS_OF_FACT[fact][0]: facts[fact] for fact in plain if facts.get(fact) is not None})
    if facts.get("gradient_checkpointing") is False:
        out["disable_gradient_checkpointing"] = True
    if facts.get("compute_dtype") in ("torch.bfloat16", "bfloat16"):
        out["bf16"] = True
    if facts.get("compute_dtype") in ("torch.float16", "float16"):
        out["fp16"] = True
    return out


def drop_facts_about(facts: Mapping[str, Any], keys: Container[str]) -> dict[str, Any]:
    """`facts` without those that reveal the value of one of these options, after it was changed."""
    return {name: value for name, value in facts.items() if not any(key in keys for key in _OPTIONS_OF_FACT.get(name, ()))}


def _zero(value: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Stage, offload and overlap_comm of ZeRO as options of their own."""
    zero = deepspeed.read(value, facts)
    return {"zero_stage": zero.stage, "zero_offload": zero.offload, "zero_overlap_comm": zero.overlap}


def _loads_reference(values: Mapping[str, Any]) -> bool:
    """Whether a second model is loaded as reference (train/trainer_utils.py create_ref_model); LoRA switches its adapter off instead."""
    stage = values.get("stage")
    wanted = stage in ("kto", "ppo") or (stage == "dpo" and values.get("pref_loss") not in ("orpo", "simpo"))
    return wanted and (values.get("ref_model") is not None or values.get("finetuning_type") != "lora")


def _saves_at_evaluations(values: Mapping[str, Any]) -> bool | None:
    """Whether save_steps is a multiple of eval_steps, as transformers asks of load_best_model_at_end; None for shares of the run."""
    saves, evaluations = values.get("save_steps"), values.get("eval_steps") or values.get("logging_steps")
    if not isinstance(saves, int | float) or not isinstance(evaluations, int | float) or min(saves, evaluations) < 1:
        return None
    return saves % evaluations == 0


def _warmup_share(values: Mapping[str, Any], facts: Mapping[str, Any]) -> float | None:
    """Warm-up as a share of the run. transformers: warmup_steps >= 1 are steps and win, below 1 a share; else warmup_ratio."""
    steps, ratio = values.get("warmup_steps"), values.get("warmup_ratio")
    if isinstance(steps, int | float) and steps >= 1:
        planned = as_float(facts.get("steps.planned") or values.get("max_steps"), 0.0)
        return as_float(steps, 0.0) / planned if planned > 0 else None
    return float(next((part for part in (steps, ratio) if isinstance(part, int | float) and part > 0), 0))


def scope_of(run: Run, facts: Mapping[str, Any]) -> Scope:
    """What conditions can read.

    `config.*` effective values, `written.*` given ones, `fact.*` facts (the match's before the run's), `run.*` the run's shape.
    """
    known = {**run.facts, **facts}
    shape = {
        "completed": run.completed,
        "first_step": run.first_step,
        "last_step": run.last_step,
        "ranks": len(run.ranks),
        "attempts": len(run.attempts),
    }
    return {"config": effective(run.config, known), "written": run.config, "fact": known, "run": shape}
