"""A remedy in the words of the program that ran: LLaMA-Factory, another one, or one that nothing names."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from doctor.config.options import is_own
from doctor.planner.admission import of_llamafactory
from doctor.planner.types import Program
from doctor.rulebook.findings import RankedFinding
from doctor.rulebook.model import Remedy
from doctor.support import cache
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text
from doctor.words import catalogue

_TRIED_IN_TURN = ("out_of_memory", "slow", "loss_spike", "divergence", "nonfinite", "overfitting", "plateau")
"""Symptoms whose many remedies are tried one after the other: with every option's other names nobody would read them."""


def told_for(program: Program, judged: Sequence[RankedFinding]) -> Sequence[RankedFinding]:
    """The findings with their rules' remedies as they are told to somebody who runs `program`."""
    if program == "llamafactory":
        return judged
    return [_told(program, one) for one in judged]


def fits_another(remedy: Remedy) -> bool:
    """Whether a remedy says something that a person with another program than LLaMA-Factory can do."""
    if remedy.elsewhere is not None or any(True for _ in _names(remedy)):
        return True
    own = any(
        is_own(key) for op in remedy.patch if op.target == "config" for key in (*(op.set or {}), *(op.scale or {}), *(op.unset or ()))
    )
    return not own and not of_llamafactory(remedy)


def _told(program: Program, ranked: RankedFinding) -> RankedFinding:
    rule = ranked.finding.rule
    remedies = [_of_another(one) if program == "other" else _of_any(one, rule.symptom not in _TRIED_IN_TURN) for one in rule.remedies]
    if all(new is old for new, old in zip(remedies, rule.remedies, strict=True)):
        return ranked
    finding = msgspec.structs.replace(ranked.finding, rule=msgspec.structs.replace(rule, remedies=remedies))
    return msgspec.structs.replace(ranked, finding=finding)


def _of_another(remedy: Remedy) -> Remedy:
    """For a program that does not know LLaMA-Factory's options: its own names first, and nothing that a patch could set."""
    if remedy.elsewhere is not None:
        return _by_hand(remedy, remedy.elsewhere)
    names = ", ".join(_names(remedy))
    if not names:
        return remedy
    return _by_hand(remedy, catalogue.text("planner.in_another", names=names, text=remedy.text))


def _of_any(remedy: Remedy, with_names: bool) -> Remedy:
    """For a program that nothing names: LLaMA-Factory's words, and those of another program after them."""
    if remedy.elsewhere is not None:
        text = catalogue.text("planner.or_elsewhere", text=remedy.text, other=remedy.elsewhere)
        return msgspec.structs.replace(remedy, text=text)
    names = ", ".join(_names(remedy)) if with_names else ""
    return msgspec.structs.replace(remedy, text=catalogue.text("planner.or_in_another", names=names, text=remedy.text)) if names else remedy


def _by_hand(remedy: Remedy, text: Text) -> Remedy:
    """The remedy as something that only a person can do."""
    return msgspec.structs.replace(remedy, text=text, patch=[], keep=[], requires=[], command=None, done_if=None)


def _names(remedy: Remedy) -> Iterator[str]:
    """What the remedy's own options of LLaMA-Factory are in other programs, each once."""
    sets = {key: value for op in remedy.patch if op.target == "config" for key, value in (op.set or {}).items()}
    scaled = {key: None for op in remedy.patch if op.target == "config" for key in (*(op.scale or {}), *(op.unset or ()))}
    for key, value in {**scaled, **sets}.items():
        values = _names_elsewhere().get(key, {}) if is_own(key) else {}
        name = values.get(str(value), values.get("*"))
        if name is not None:
            yield name


@functools.cache
def _names_elsewhere() -> Mapping[str, Mapping[str, str]]:
    """rules/elsewhere.yaml: option -> new value as text, or `*` -> names."""
    written = convert(cache.load_yaml(rules_folder() / "elsewhere.yaml"), dict[str, dict[Any, str]])
    return {key: {str(value): name for value, name in values.items()} for key, values in written.items()}
