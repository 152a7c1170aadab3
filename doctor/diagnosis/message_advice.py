"""Another program failed, and no remedy is one for it: what its own message advises becomes the first step."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from doctor.diagnosis.unlisted.advice import advice_in, asks, step_of
from doctor.planner.elsewhere import fits_another
from doctor.rulebook.findings import RankedFinding, root_of, with_root
from doctor.rulebook.model import FIRST, Remedy

_DOES = re.compile(r"\b(?:please|use|set|pass|specify|install|remove|try|add|run|call)\b", re.IGNORECASE)
"""A sentence that says what to do, not only what ought to be."""


def with_message_advice(ranked: Sequence[RankedFinding]) -> list[RankedFinding]:
    """The findings of another program's failure; the root, if all its remedies are LLaMA-Factory's, with its message's own advice first."""
    root = root_of(ranked)
    if root is None or root.says or any(map(_is_cure, root.rule.remedies)):
        return list(ranked)
    says = [one for piece in root.evidence for one in advice_in(piece.text) if one.command or _DOES.search(one.quote)]
    step = step_of(says)
    if step is None or step.check:
        return list(ranked)
    match = msgspec.structs.replace(root.first, facts={**root.first.facts, **asks(says)})
    led = root.led_by(msgspec.structs.replace(step, price=FIRST))
    return with_root(ranked, msgspec.structs.replace(led, first=match))


def _is_cure(remedy: Remedy) -> bool:
    return remedy.excluded is None and not remedy.check and fits_another(remedy)
