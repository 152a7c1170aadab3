"""A failure that no rule lists, told with a cause that was inferred rather than read, and with what would confirm it."""

from __future__ import annotations

import msgspec

from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Body, Remedy
from doctor.support.texts import Text


def with_noted_cause(finding: Finding, cause: str, name: str, body: Text, confidence: float) -> Finding:
    """The finding with `cause`, which must have a note (rules/causes.yaml); `name` is the last part of the new rule id."""
    note = cause_notes()[cause]
    rule = msgspec.structs.replace(
        finding.rule,
        id=f"{note.family}/{name}",
        cause=cause,
        title=note.title,
        body=[Body(body.en, body.ko, body.zh)],
        confidence=confidence,
        remedies=[Remedy(id="confirm", text=note.check, effect="manual", check=True), *finding.rule.remedies],
        fallback=False,
    )
    return msgspec.structs.replace(finding, rule=rule)
