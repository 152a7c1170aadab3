"""Which finding explains which; the root cause is the earliest failure that nothing explains."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from doctor.rulebook.findings import Finding, RankedFinding

_SEVERITY = {"error": 0, "warning": 1, "note": 2}
MIN_ROOT_CONFIDENCE = 0.5
"""A finding below this confidence says "don't know for sure": it is the root only where no surer one is left."""


def assign_roles(findings: Sequence[Finding]) -> list[RankedFinding]:
    """Gives every finding its role and orders them: root causes, then by severity, confidence and place in the run.

    A finding is a consequence where another one matches its rule's `explained_by` and does not itself name it as its explanation.
    Of what is left of the latest attempt that failed (a log may hold several), the root is the earliest error that is sure, on the
    rank that the launcher names as the first to fail; then the earliest unsure one; with no error the earliest warning. Where the
    only failure is one that nobody knows (a fallback rule), and it explains the rest, that is the root. Others contribute.
    """
    possible = {id(finding): [other for other in findings if _may_explain(other, finding)] for finding in findings}
    explained = {id(finding): _preferred_explanation(possible[id(finding)], possible) for finding in findings}
    root = _root(findings, explained)
    judged = [_role(finding, root, explained[id(finding)]) for finding in findings]
    return sorted(judged, key=_report_order)


def _preferred_explanation(causes: Sequence[Finding], possible: Mapping[int, Sequence[Finding]]) -> Finding | None:
    """Of several explanations the one that needs none itself, then the earliest."""
    return min(causes, key=lambda cause: (bool(possible[id(cause)]), _is_unsure(cause), _order_key(cause)), default=None)


def _root(findings: Sequence[Finding], explained: Mapping[int, Finding | None]) -> Finding | None:
    told = [finding for finding in findings if finding.rule.severity != "note"]
    free = [finding for finding in told if explained[id(finding)] is None]
    if not free:
        unknown = [cause for finding in told if (cause := explained[id(finding)]) is not None and cause.rule.fallback]
        free = unknown or told  # findings that explain each other in a circle: the earliest is as good as any
    worst = min((_SEVERITY[finding.rule.severity] for finding in free), default=None)
    candidates = [finding for finding in free if _SEVERITY[finding.rule.severity] == worst]
    latest = max((finding.first.attempt for finding in candidates), default=0)
    candidates = [finding for finding in candidates if finding.first.attempt == latest]
    rank = _first_to_fail(findings)
    return min(candidates, key=lambda finding: (_is_unsure(finding), _on_other_rank(finding, rank), _order_key(finding)), default=None)


def _first_to_fail(findings: Sequence[Finding]) -> int | None:
    """The rank that a launcher names as its first observed failure."""
    named = [finding.first for finding in findings if finding.first.facts.get("first") and finding.first.rank is not None]
    return named[0].rank if named else None


def _on_other_rank(finding: Finding, rank: int | None) -> bool:
    return rank is not None and bool(finding.ranks) and rank not in finding.ranks


def _may_explain(cause: Finding, effect: Finding) -> bool:
    if cause is effect or not _listed(cause, effect):
        return False
    if cause.rule.fallback:
        return _earlier_or_elsewhere(cause, effect)
    if cause.rule.severity == "note":
        return False
    return not _listed(effect, cause) or _order_key(cause) < _order_key(effect)


def _listed(cause: Finding, effect: Finding) -> bool:
    """Whether the effect's rule names the cause's; `*/*` means any that is at least as severe, a named family any of it."""
    if cause.rule.id == effect.rule.id:
        return False
    as_severe = _SEVERITY[cause.rule.severity] <= _SEVERITY[effect.rule.severity] or cause.rule.fallback
    patterns = [pattern for pattern in effect.rule.explained_by if as_severe or pattern != "*/*"]
    return any(fnmatch.fnmatchcase(cause.rule.id, pattern) for pattern in patterns)


def _earlier_or_elsewhere(cause: Finding, effect: Finding) -> bool:
    """A traceback that nobody knows explains what came after it in its file, or happened in another one."""
    a, b = cause.first.where, effect.first.where
    return a.file != b.file or a.line is None or b.line is None or a.line < b.line


def _is_unsure(finding: Finding) -> bool:
    return finding.confidence < MIN_ROOT_CONFIDENCE and not finding.rule.fallback


def _order_key(finding: Finding) -> tuple[int, int]:
    """Attempt, then the order in which the text was read."""
    return (finding.first.attempt, finding.order)


def _role(finding: Finding, root: Finding | None, explanation: Finding | None) -> RankedFinding:
    if finding is root:
        return RankedFinding(finding, "root")
    if explanation is not None:
        return RankedFinding(finding, "consequence", explanation.rule.id)
    return RankedFinding(finding, "contributing")


def _report_order(judged: RankedFinding) -> tuple[Any, ...]:
    rank = 0 if judged.role == "root" else 1 if judged.role == "contributing" else 2
    return (rank, _SEVERITY[judged.finding.rule.severity], -judged.finding.confidence, judged.finding.order)
