"""A failure that no rule lists, told with a cause that was inferred rather than read, and with what would confirm it."""

from __future__ import annotations

import msgspec

from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Body, Remedy
from doctor.support.texts import Text


def _kept(finding: Finding, cause: str) -> list[Remedy]:
    """The remedies that still hold under another cause: what the message itself asks for, where to look, what its own code is."""
    remedies = finding.rule.remedies
    if finding.rule.cause == cause:
        return remedies
    return [one for one in remedies if one.check or one.id.startswith("message-") or one.id == "own-code"]


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
        remedies=[Remedy(id="confirm", text=note.check, effect="manual", check=True), *_kept(finding, cause)],
        fallback=False,
    )
    return msgspec.structs.replace(finding, rule=rule)
