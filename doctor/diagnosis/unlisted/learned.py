"""The classifier's opinions in a report: the cause where it is sure enough, else up to three possible causes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from doctor.core.run import Run
from doctor.diagnosis.unlisted import telling
from doctor.diagnosis.unlisted.answer import WEAK, raised, unknown_of
from doctor.diagnosis.unlisted.candidates import opinions_on
from doctor.diagnosis.unlisted.classifier import LIKELY, NAMED, SHOWN, Opinion
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.noted_cause import with_noted_cause
from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.exceptions import LIKELY as LIKELY_CONFIDENCE
from doctor.rulebook.exceptions import POSSIBLE, UNKNOWN
from doctor.rulebook.findings import Candidate, Finding, RankedFinding
from doctor.rulebook.model import Remedy
from doctor.rulebook.reliability import kind_of, reliability
from doctor.support.texts import Text
from doctor.words import catalogue

NAME = "learned"
"""The last part of the rule's id under which a learned cause is reported; the first is its family."""


def with_candidates(ranked: list[RankedFinding], run: Run, seen: LastEvents, consoles: Sequence[str]) -> list[RankedFinding]:
    """The findings; the first, if it is a failure that no rule lists, with the classifier's opinion.

    Of an unknown failure a cause of which the classifier is sure becomes the finding's own. A conclusion that it shares is told with more
    confidence, one that it contradicts with less (rules/reliability.yaml), or only as one of the possible causes.
    """
    first = ranked[0] if ranked else None
    if first is None or first.role != "root" or not is_unlisted(first.finding):
        return ranked
    told = cause_notes()
    # the classifier reads the whole log: what is told as a consequence of this failure is not its cause
    echoes = {one.finding.rule.cause for one in ranked if one.role == "consequence"}
    opinions = [one for one in opinions_on(run, seen, consoles) if one.cause in told and one.cause not in echoes]
    if first.finding.rule.cause == UNKNOWN:
        finding = _named(first.finding, opinions, run, seen)
    else:
        finding = _weighed(first.finding, opinions, run, seen)
    return [msgspec.structs.replace(first, finding=finding), *ranked[1:]]


def is_unlisted(finding: Finding) -> bool:
    """Whether the finding is a failure that no rule lists."""
    return finding.rule.severity == "error" and "uncaught_exception" in finding.rule.when


def is_open(finding: Finding) -> bool:
    """Whether the finding is a failure that no rule lists and whose cause is not even likely."""
    return is_unlisted(finding) and finding.confidence < LIKELY_CONFIDENCE


def _named(finding: Finding, opinions: Sequence[Opinion], run: Run, seen: LastEvents) -> Finding:
    """The unknown failure with the classifier's cause where it is sure enough, else with possible causes."""
    if opinions and opinions[0].probability >= NAMED:
        opening = _opening(finding, run, seen)
        if opening is not None:
            named = _learned(finding, opinions[0], opening)
            rest = () if opinions[0].probability >= LIKELY else tuple(map(_candidate, opinions[1:]))
            return msgspec.structs.replace(named, candidates=rest)
    return msgspec.structs.replace(finding, candidates=tuple(map(_candidate, opinions)))


def _weighed(finding: Finding, opinions: Sequence[Opinion], run: Run, seen: LastEvents) -> Finding:
    """The conclusion with the confidence that its kind earned; below possible the failure is unknown, and the conclusion a candidate."""
    cause = finding.rule.cause
    agreement = "alone" if not opinions else "agreed" if opinions[0].cause == cause else "disagreed"
    said = "origin" if finding.rule.id.endswith("/origin") else "likely" if finding.confidence >= LIKELY_CONFIDENCE else "possible"
    confidence = reliability().confidence(kind_of(said, agreement), finding.rule.id)
    others = tuple(_candidate(one) for one in opinions if one.cause != cause) if agreement == "disagreed" else ()
    if confidence < WEAK and cause in cause_notes():
        own = _candidate(Opinion(cause, confidence))
        unknown = unknown_of(finding, run, seen)
        if unknown is not None:
            ordered = sorted((own, *others), key=lambda one: -one.probability)[:SHOWN]
            return msgspec.structs.replace(unknown, candidates=tuple(ordered))
    rule = msgspec.structs.replace(finding.rule, confidence=confidence)
    return msgspec.structs.replace(finding, rule=rule, candidates=others[: SHOWN - 1])


def _opening(finding: Finding, run: Run, seen: LastEvents) -> Text | None:
    """The sentence on the exception of the finding; None where it is told by no exception."""
    features = next((one.features for one in raised(run, seen) if one.where == finding.first.where), None)
    return telling.opening(features) if features is not None else None


def _learned(finding: Finding, opinion: Opinion, opening: Text) -> Finding:
    """The finding with the opinion as its cause; what would confirm it comes before the other steps."""
    reasons = ", ".join(f"`{reason}`" for reason in opinion.reasons)
    body = catalogue.text("report.say.learned", opening=opening, reasons=reasons)
    confidence = LIKELY_CONFIDENCE if opinion.probability >= LIKELY else POSSIBLE
    rule = msgspec.structs.replace(finding.rule, remedies=_kept(finding, opinion.cause))
    return with_noted_cause(msgspec.structs.replace(finding, rule=rule), opinion.cause, NAME, body, confidence)


def _kept(finding: Finding, cause: str) -> list[Remedy]:
    """The remedies that still hold under another cause: what the message itself asks for, where to look, what its own code is."""
    remedies = finding.rule.remedies
    if finding.rule.cause == cause:
        return remedies
    return [one for one in remedies if one.check or one.id.startswith("message-") or one.id == "own-code"]


def _candidate(opinion: Opinion) -> Candidate:
    note = cause_notes()[opinion.cause]
    return Candidate(cause=opinion.cause, probability=opinion.probability, reasons=opinion.reasons, title=note.title, check=note.check)
