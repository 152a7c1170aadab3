"""The classifier's opinions in a report: the cause where it is sure enough, else up to three possible causes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from doctor.core.run import Run
from doctor.diagnosis.unlisted import telling
from doctor.diagnosis.unlisted.answer import RULE, raised
from doctor.diagnosis.unlisted.candidates import opinions_on
from doctor.diagnosis.unlisted.classifier import LIKELY, Opinion
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.exceptions import LIKELY as LIKELY_CONFIDENCE
from doctor.rulebook.findings import Candidate, Finding, RankedFinding
from doctor.rulebook.model import Body, Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

NAME = "learned"
"""The last part of the rule's id under which a learned cause is reported; the first is its family."""


def with_candidates(ranked: list[RankedFinding], run: Run, seen: LastEvents, consoles: Sequence[str]) -> list[RankedFinding]:
    """The findings; the first, if it is a failure whose cause is unknown or a mere possibility, with its possible causes.

    A cause of which the classifier is sure becomes the finding's own, as "likely".
    """
    first = ranked[0] if ranked else None
    if first is None or first.role != "root" or not is_open(first.finding):
        return ranked
    told = cause_notes()
    opinions = [one for one in opinions_on(run, seen, consoles) if one.cause in told]
    finding = first.finding
    if finding.rule.id == RULE and opinions and opinions[0].probability >= LIKELY:
        opening = _opening(finding, run, seen)
        if opening is not None:
            finding, opinions = _learned(finding, opinions[0], opening), opinions[1:]
    elif opinions and opinions[0].cause == finding.rule.cause:
        return ranked
    others = tuple(_candidate(one) for one in opinions if one.cause != finding.rule.cause)
    finding = msgspec.structs.replace(finding, candidates=() if finding.rule.id.endswith(f"/{NAME}") else others)
    return [msgspec.structs.replace(first, finding=finding), *ranked[1:]]


def is_open(finding: Finding) -> bool:
    """Whether the finding is a failure that no rule lists and whose cause is not even likely."""
    rule = finding.rule
    return rule.severity == "error" and "uncaught_exception" in rule.when and finding.confidence < LIKELY_CONFIDENCE


def _opening(finding: Finding, run: Run, seen: LastEvents) -> Text | None:
    """The sentence on the exception of the finding; None where it is told by no exception."""
    features = next((one.features for one in raised(run, seen) if one.where == finding.first.where), None)
    return telling.opening(features) if features is not None else None


def _learned(finding: Finding, opinion: Opinion, opening: Text) -> Finding:
    """The finding with the opinion as its cause; what would confirm it comes before the other steps."""
    note = cause_notes()[opinion.cause]
    reasons = ", ".join(f"`{reason}`" for reason in opinion.reasons)
    body = catalogue.text("report.say.learned", opening=opening, reasons=reasons)
    rule = msgspec.structs.replace(
        finding.rule,
        id=f"{note.family}/{NAME}",
        cause=opinion.cause,
        title=note.title,
        body=[Body(body.en, body.ko, body.zh)],
        confidence=LIKELY_CONFIDENCE,
        remedies=[Remedy(id="confirm", text=note.check, effect="manual"), *finding.rule.remedies],
        fallback=False,
    )
    return msgspec.structs.replace(finding, rule=rule)


def _candidate(opinion: Opinion) -> Candidate:
    note = cause_notes()[opinion.cause]
    return Candidate(cause=opinion.cause, probability=opinion.probability, reasons=opinion.reasons, title=note.title, check=note.check)
