"""Remedies for a run of LLaMA-Factory's v1 trainer: it refuses v0's options, so none of them is put into a patch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from doctor.config import knowledge
from doctor.config.options import table
from doctor.config.v1 import FROM_V0
from doctor.planner.types import Advice
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

_OTHER_VALUES = frozenset({"flash_attn"})
"""Options of both trainers whose values differ."""
_CHECKPOINTING = frozenset({"gradient_checkpointing", "disable_gradient_checkpointing"})
"""v0's names of what v1 does unless `enable_activation_checkpointing: false`."""
_ACCUMULATION = "gradient_accumulation_steps"
"""v1 has no such option: the number follows from the batch sizes."""
_NAMED = re.compile(r"`(\w+)(?:[:=][^`]*)?`")


def for_v1(remedy: Remedy, facts: Mapping[str, Any]) -> Advice:
    """Left to the user, in v1's names; not applicable where v1 has no such option, done where its own config or default says so."""
    by_hand = Advice(remedy, "manual", catalogue.text("planner.by_hand"))
    own = knowledge.options_of("v1").keys() - _OTHER_VALUES
    changed = {key for op in remedy.patch if op.target == "config" for key in (*(op.set or {}), *(op.unset or ()), *(op.scale or {}))}
    missing = sorted(key for key in changed if key not in own and key not in FROM_V0)
    if missing:
        return Advice(remedy, "not_applicable", catalogue.text("planner.v1_no_option", names=", ".join(f"`{name}`" for name in missing)))
    if changed & _CHECKPOINTING and _given(facts).get("enable_activation_checkpointing") is not False:
        return Advice(remedy, "done", catalogue.text("planner.done"))
    named = dict.fromkeys(name for name in [*_NAMED.findall(remedy.text.en), *sorted(changed)] if name in table() and name in FROM_V0)
    if not named:
        return by_hand
    accumulation = catalogue.text("planner.v1_accumulation")
    if set(named) == {_ACCUMULATION}:
        return Advice(remedy, "not_applicable", accumulation)
    more = [accumulation] if _ACCUMULATION in named else []
    named.pop(_ACCUMULATION, None)
    names = catalogue.text("planner.v1_names", names=", ".join(f"`{name}` → `{FROM_V0[name]}`" for name in named))
    text = Text(*(" ".join(part.get(lang) for part in (remedy.text, names, *more)) for lang in ("en", "ko", "zh")))
    return msgspec.structs.replace(by_hand, remedy=msgspec.structs.replace(remedy, text=text, command=None))


def _given(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The v1 config that was read; empty if none was."""
    config = facts.get("v1.config")
    values = config.get("values") if isinstance(config, Mapping) else None
    return values if isinstance(values, Mapping) else {}
