"""What helped in a public failure that is near enough, as a step of the report."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from doctor.diagnosis.unlisted.with_release import OF_VERSIONS
from doctor.report.build import SimilarIssue
from doctor.rulebook.findings import RankedFinding
from doctor.rulebook.model import Remedy
from doctor.words import catalogue

NEAR = 0.6
"""Cosine from which on what helped there is worth a try here. Of 30 of the 231 public cases of which another issue of the same cause is
known, those above it had a fix that fits the case, but for one; between 0.45 and 0.6 those about versions named other releases."""
NEAR_VERSION = 0.8
"""The same for causes whose messages all look alike while the release that helped is another each time."""
_OF_VERSIONS = ("hf_stack_api_break", "package_version_conflict", "model_architecture_unsupported")


def with_similar_step(ranked: Sequence[RankedFinding], similar: Sequence[Sequence[SimilarIssue]]) -> list[RankedFinding]:
    """The findings; the root cause with the fix of its nearest public failure as a step, behind the rule's own cures."""
    if not similar:
        return list(ranked)
    return [_with_step(one, issues) for one, issues in zip(ranked, similar, strict=True)]


def _with_step(ranked: RankedFinding, issues: Sequence[SimilarIssue]) -> RankedFinding:
    nearest = max(issues, key=lambda one: one.score, default=None)
    if ranked.role != "root" or nearest is None or nearest.score < (NEAR_VERSION if ranked.finding.rule.cause in _OF_VERSIONS else NEAR):
        return ranked
    repository, _, number = nearest.issue.partition("#")
    step = Remedy(
        id="similar-failure",
        text=catalogue.text("report.say.similar_step", issue=nearest.issue, fix=nearest.fix),
        effect="manual",
        references=[f"https://github.com/{repository}/issues/{number}"],
    )
    own = ranked.finding.rule.remedies
    place = 1 + max((at for at, one in enumerate(own) if not one.check and one.id not in OF_VERSIONS), default=-1)
    rule = msgspec.structs.replace(ranked.finding.rule, remedies=[*own[:place], step, *own[place:]])
    return msgspec.structs.replace(ranked, finding=msgspec.structs.replace(ranked.finding, rule=rule))
