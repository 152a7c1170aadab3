"""A patch as data: changes of the config, the environment, the DeepSpeed file or the launch command."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from doctor.config.deepspeed import deepspeed_settings
from doctor.config.options import table
from doctor.config.values import LARGEST, OLDER_NAMES, as_float, as_number
from doctor.rulebook.conditions import MISSING, Scope, holds, look_up, same_value
from doctor.rulebook.model import Op, Remedy, Scale

Target = Literal["config", "env", "deepspeed", "command"]

_PLACEHOLDER = re.compile(r"\{((?:fact|config|plan)\.[\w.]+)\}")
_TIED_TO_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


class Unknown(LookupError):
    """A remedy needs a value that is not known (`{fact.x}` without that fact)."""


class Change(msgspec.Struct, frozen=True):
    """One key set or unset; `old` is the given value (None if it was not given).

    `scale` is for a value that was not read: `new` is the factor. No patch has it.
    """

    target: Target
    op: Literal["set", "unset", "scale"]
    key: str
    old: Any
    new: Any


class Patch(msgspec.Struct, frozen=True):
    """Changes that belong together; `because` maps each changed key to the remedy (`rule id#remedy id`) that asked for it."""

    changes: tuple[Change, ...] = ()
    because: dict[str, str] = {}


def changes_of(remedy: Remedy, config: Mapping[str, Any], scope: Scope) -> tuple[Change, ...]:
    """The remedy's changes of `config` (given keys only; `scope["config"]` holds the effective values); empty if it changes nothing.

    Conditions and placeholders are evaluated before the remedy. Raises Unknown for a value that is not known.
    """
    changed: dict[tuple[Target, str], Change] = {}
    given = dict(config)  # with what has changed of inline DeepSpeed settings: they are one key, whose parts change one by one
    for op in remedy.patch:
        if holds(op.only_if, scope):
            for change in _changes(op, given, scope):
                if change.target == "config" or look_up(f"fact.{change.target}.{change.key}", scope) != change.new:
                    changed[change.target, change.key] = change
                if change.target == "config" and change.key == "deepspeed":
                    given["deepspeed"] = change.new
    after = {**scope["config"], **apply({}, changed.values())}
    for change in _kept(remedy, given, scope["config"], after):
        changed[change.target, change.key] = change
    return tuple(replace(change, old=config.get(change.key)) if change.target == "config" else change for change in changed.values())


def apply(config: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """`config` with the changes that concern it; applying them again changes nothing."""
    out = dict(config)
    for change in changes:
        if change.target != "config":
            continue
        if change.op == "set":
            out[change.key] = change.new
        else:
            out.pop(change.key, None)
    return out


def joined(config: Mapping[str, Any], changes: Iterable[Change]) -> tuple[Change, ...]:
    """One change per key: from the value given in `config` to the last new one. Changes without effect are left out."""
    last: dict[tuple[Target, str], Change] = {}
    for change in changes:
        last.pop((change.target, change.key), None)
        last[change.target, change.key] = change
    out = []
    for change in last.values():
        if change.target != "config":
            out.append(change)
        elif change.key in config if change.op == "unset" else not same_value(config.get(change.key, MISSING), change.new):
            out.append(replace(change, old=config.get(change.key)))
    return tuple(out)


def fill(value: Any, scope: Scope) -> Any:
    """`value` with its placeholders filled. A text that is a single placeholder becomes the value itself. Raises Unknown."""
    if isinstance(value, dict):
        return {key: fill(part, scope) for key, part in value.items()}
    if isinstance(value, list):
        return [fill(part, scope) for part in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return _known(whole[1], scope)
    return _PLACEHOLDER.sub(lambda found: str(_known(found[1], scope)), value)


def _known(path: str, scope: Scope) -> Any:
    value = look_up(path, scope)
    if value is MISSING or value is None:
        raise Unknown(path)
    return value


def _changes(op: Op, config: Mapping[str, Any], scope: Scope) -> Iterator[Change]:
    values = scope["config"]
    for key, wanted in (op.set or {}).items():
        name = fill(key, scope)
        yield from _set(op.target, name, _typed(name, fill(wanted, scope)), config, values)
    for name in op.unset or ():
        key = fill(name, scope)
        if op.target == "config" and key in config:
            yield Change("config", "unset", key, config[key], None)
    for key, scale in (op.scale or {}).items():
        new = _scaled(values.get(key), float(fill(scale.by, scope)), scale)
        if new is not None:
            yield Change("config", "set", key, config.get(key), new)


def _typed(key: str, value: Any) -> Any:
    """A number for an option that is one: what a log line says is text, which LLaMA-Factory would take as it stands in the YAML."""
    option = table().get(key)
    if isinstance(value, str) and option is not None and {"int", "float"} & set(option.type.split("|")) and "str" not in option.type:
        number = as_number(value)
        return value if number is None else number
    return value


def _set(target: Target, key: str, new: Any, config: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Change]:
    if target == "deepspeed":
        settings = deepspeed_settings(config.get("deepspeed"))
        if settings is None:
            yield Change("deepspeed", "set", key, None, new)
        else:
            yield Change("config", "set", "deepspeed", config.get("deepspeed"), _with(settings, key.split("."), new))
    elif target != "config":
        yield Change(target, "set", key, None, new)
    elif not same_value(values.get(key), new) or (key not in config and OLDER_NAMES.get(key) in config):
        yield Change("config", "set", key, config.get(key), copy.deepcopy(new))


def _with(settings: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of nested settings with one value set."""
    inner = settings.get(path[0])
    return {**settings, path[0]: value if len(path) == 1 else _with(inner if isinstance(inner, Mapping) else {}, path[1:], value)}


def _scaled(value: Any, by: float, scale: Scale) -> int | float | None:
    """The scaled number; None if the limits would leave it unchanged or move it the other way."""
    if isinstance(value, str):
        value = as_float(value, math.nan)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(as_float(value, math.nan)) < LARGEST:
        return None
    new = value * by
    if scale.at_most is not None:
        new = min(new, scale.at_most)
    if scale.at_least is not None:
        new = max(new, scale.at_least)
    new = math.floor(new) if isinstance(value, int) else float(f"{new:.3g}")
    moves = new < value if by < 1 else new > value
    return new if moves else None


def _kept(remedy: Remedy, config: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    if "effective_batch_size" in remedy.keep:
        yield from _same_effective_batch(config, before, after)
    if "lora_scaling" in remedy.keep:
        yield from _same_lora_scaling(config, before, after)


def _same_effective_batch(config: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Accumulation takes over what the batch per GPU lost (rounded up); numbers fixed in inline DeepSpeed settings follow."""
    old, new = before.get("per_device_train_batch_size"), after.get("per_device_train_batch_size")
    steps = before.get("gradient_accumulation_steps")
    if not (isinstance(old, int) and isinstance(new, int) and isinstance(steps, int)) or old == new or min(old, new, steps) < 1:
        return
    wanted = math.ceil(old * steps / new)
    if wanted != steps:
        yield Change("config", "set", "gradient_accumulation_steps", config.get("gradient_accumulation_steps"), wanted)
    settings = deepspeed_settings(config.get("deepspeed"))
    fixed = [key for key in _TIED_TO_BATCH if settings and isinstance(settings.get(key), int)]
    if settings and fixed:
        yield Change("config", "set", "deepspeed", config["deepspeed"], {**settings, **dict.fromkeys(fixed, "auto")})


def _same_lora_scaling(config: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """A given lora_alpha follows the rank, so that alpha / r (with rsLoRA alpha / sqrt(r)) stays; the default is 2 r anyway."""
    alpha, old, new = config.get("lora_alpha"), before.get("lora_rank"), after.get("lora_rank")
    if isinstance(alpha, int) and isinstance(old, int) and isinstance(new, int) and old > 0 and old != new:
        share = math.sqrt(new / old) if before.get("use_rslora") is True else new / old
        yield Change("config", "set", "lora_alpha", alpha, max(1, round(alpha * share)))
