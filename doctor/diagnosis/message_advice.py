"""Another program failed, and no remedy is one for it: what its own message advises becomes the first step."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from doctor.diagnosis.unlisted.advice import advice_in, asks, step_of
from doctor.planner.elsewhere import fits_another
from doctor.rulebook.findings import RankedFinding
from doctor.rulebook.model import Remedy

_DOES = re.compile(r"\b(?:please|use|set|pass|specify|install|remove|try|add|run|call)\b", re.IGNORECASE)
"""A sentence that says what to do, not only what ought to be."""
_FIRST = 0.1
"""A price below 1: before what a patch changes."""


def with_message_advice(ranked: Sequence[RankedFinding]) -> list[RankedFinding]:
    """The findings of another program's failure; the root, if all its remedies are LLaMA-Factory's, with its message's own advice first."""
    ranked = list(ranked)
    first = ranked[0] if ranked else None
    if first is None or first.role != "root" or first.finding.says or any(map(_is_cure, first.finding.rule.remedies)):
        return ranked
    says = [one for piece in first.finding.evidence for one in advice_in(piece.text) if one.command or _DOES.search(one.quote)]
    step = step_of(says)
    if step is None or step.check:
        return ranked
    step = msgspec.structs.replace(step, price=_FIRST)
    match = msgspec.structs.replace(first.finding.first, facts={**first.finding.first.facts, **asks(says)})
    rule = msgspec.structs.replace(first.finding.rule, remedies=[step, *first.finding.rule.remedies])
    return [msgspec.structs.replace(first, finding=msgspec.structs.replace(first.finding, rule=rule, first=match)), *ranked[1:]]


def _is_cure(remedy: Remedy) -> bool:
    return remedy.excluded is None and not remedy.check and fits_another(remedy)
