"""Of a failure that no rule lists: where its message is raised, and the cause that this place stands for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from doctor.core.run import Run
from doctor.diagnosis.unlisted import telling
from doctor.diagnosis.unlisted.answer import RULE, raised
from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.learned import is_open
from doctor.diagnosis.unlisted.origin_text import sentence
from doctor.diagnosis.unlisted.origins import Origin, find
from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.exceptions import LIKELY, POSSIBLE
from doctor.rulebook.findings import Finding, RankedFinding
from doctor.rulebook.model import Body, Remedy
from doctor.words import catalogue

NAME = "origin"
"""The last part of the rule's id under which a cause by origin is reported; the first is its family."""
SURE = 0.7
"""Confidence of an origin from which on its cause is told."""


def with_origin(ranked: Sequence[RankedFinding], run: Run, seen: LastEvents) -> list[RankedFinding]:
    """The findings; the first, if no rule lists it and its cause is not even likely, with the place its message comes from.

    A cause that a person gave to that very message takes the place of a mere possibility, one of a whole module only that of none.
    """
    ranked = list(ranked)
    first = ranked[0] if ranked else None
    if first is None or first.role != "root" or not is_open(first.finding):
        return ranked
    features = next((one.features for one in raised(run, seen) if one.where == first.finding.first.where), None)
    origin = _origin(features) if features is not None else None
    if features is None or origin is None:
        return ranked
    finding = _caused(first.finding, features, origin) or _placed(first.finding, origin)
    return [msgspec.structs.replace(first, finding=finding), *ranked[1:]]


def _origin(features: ExceptionFeatures) -> Origin | None:
    place = features.raised
    return find(features.exception, features.message, place.package if place else None, place.function if place else None)


def _placed(finding: Finding, origin: Origin) -> Finding:
    """The unknown failure, with one more sentence."""
    place = sentence(origin)
    body = [Body(f"{one.en} {place.en}", f"{one.ko} {place.ko}", f"{one.zh}{place.zh}") for one in finding.rule.body]
    return msgspec.structs.replace(finding, rule=msgspec.structs.replace(finding.rule, body=body))


def _caused(finding: Finding, features: ExceptionFeatures, origin: Origin) -> Finding | None:
    """The finding with the cause of the message's place; None if nobody gave it one or the origin is not sure enough."""
    note = cause_notes().get(origin.cause or "")
    if note is None or origin.cause is None or origin.elsewhere or origin.confidence < SURE:
        return None
    if not origin.reviewed and finding.rule.id != RULE:
        return None
    opening = catalogue.text("report.say.by_origin", opening=telling.opening(features), origin=sentence(origin))
    rule = msgspec.structs.replace(
        finding.rule,
        id=f"{note.family}/{NAME}",
        cause=origin.cause,
        title=note.title,
        body=[Body(opening.en, opening.ko, opening.zh)],
        confidence=LIKELY if origin.reviewed else POSSIBLE,
        remedies=[Remedy(id="confirm", text=note.check, effect="manual"), *finding.rule.remedies],
        fallback=False,
    )
    return msgspec.structs.replace(finding, rule=rule)
