"""Which finding explains which: the root cause is a failure that no other finding explains."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from doctor.diagnosis.refinement import LANE_WIDTH
from doctor.rulebook.findings import Finding, RankedFinding

_SEVERITY = {"error": 0, "warning": 1, "note": 2}
_ROLE = {"root": 0, "contributing": 1, "consequence": 2}
_CONFIG_LANE = 2
"""Lane of findings that stand on the configuration alone (`Finding.order`)."""
MIN_ROOT_CONFIDENCE = 0.5
"""Findings below become the root cause only if no other remains."""
FAILURES = ("out_of_memory", "killed", "crash", "stall", "config", "data", "environment")
"""Symptoms that end a run."""
CONFIDENCE_STEPS = (0.9, 0.7, MIN_ROOT_CONFIDENCE)
"""Borders of the words that the report uses (almost certain, likely, possible: words/catalogue.py); within a step the order decides."""


def assign_roles(findings: Sequence[Finding]) -> list[RankedFinding]:
    """Assign each finding a role and return them in report order: root, contributing, consequences.

    A finding is a *consequence* if another finding matches its rule's `explained_by` (`_may_explain`). Of the rest, in the last attempt,
    the *root* is chosen in this order:

    1. errors before warnings; notes, and errors that only a notice tells of, are never the root,
    2. findings of at least MIN_ROOT_CONFIDENCE,
    3. findings on the rank that the launcher reports as first failure,
    4. what the run shows before what the configuration alone says,
    5. the surest step of CONFIDENCE_STEPS, then the earliest.

    If the only failure is a traceback that no rule knows (a fallback), and it explains the rest, it is the root. Where nothing is wrong,
    advice on a slow run is what the report is about, still as a note. Everything else is *contributing*.
    """
    possible = {id(finding): [other for other in findings if _may_explain(other, finding)] for finding in findings}
    explained = {id(finding): _preferred_explanation(possible[id(finding)], possible) for finding in findings}
    root = _root(findings, explained)
    ranked = [_role(finding, root, explained[id(finding)]) for finding in findings]
    return sorted(ranked, key=_report_order)


def _preferred_explanation(causes: Sequence[Finding], possible: Mapping[int, Sequence[Finding]]) -> Finding | None:
    """Of several explanations one that needs none itself, then a sure one, then the earliest."""
    return min(causes, key=lambda cause: (bool(possible[id(cause)]), _is_unsure(cause), _order_key(cause)), default=None)


def _root(findings: Sequence[Finding], explained: Mapping[int, Finding | None]) -> Finding | None:
    reportable = [finding for finding in findings if finding.severity != "note" and not is_harmless(finding)]
    reportable = reportable or [finding for finding in findings if finding.is_note and finding.rule.symptom == "slow"]
    unexplained = [finding for finding in reportable if explained[id(finding)] is None]
    if not unexplained:
        unknown = [cause for finding in reportable if (cause := explained[id(finding)]) is not None and cause.rule.fallback]
        unexplained = unknown or reportable  # findings that explain each other in a circle
    worst = min((_SEVERITY[finding.severity] for finding in unexplained), default=None)
    candidates = [finding for finding in unexplained if _SEVERITY[finding.severity] == worst]
    last = max((finding.first.attempt for finding in candidates), default=0)
    candidates = [finding for finding in candidates if finding.first.attempt == last]
    rank = _first_to_fail(findings)
    return min(candidates, key=lambda finding: _root_key(finding, rank), default=None)


def _root_key(finding: Finding, first_to_fail: int | None) -> tuple[Any, ...]:
    place = (_is_unsure(finding), _on_other_rank(finding, first_to_fail), _from_config(finding))
    return (*place, _confidence_step(finding), _order_key(finding))


def _confidence_step(finding: Finding) -> int:
    """0 for the surest; a traceback that no rule knows is as sure as any: it did happen."""
    return 0 if finding.rule.fallback else sum(finding.confidence < border for border in CONFIDENCE_STEPS)


def _from_config(finding: Finding) -> bool:
    return finding.order // LANE_WIDTH == _CONFIG_LANE


def is_harmless(finding: Finding) -> bool:
    """A failure that only lines of level INFO or WARNING tell of, or lines after the end of the training: the program went on.

    The state of the training (loss scale, skipped steps) is logged at these levels and is no failure of the program.
    """
    return finding.notice and finding.severity == "error" and finding.rule.symptom in FAILURES


def _first_to_fail(findings: Sequence[Finding]) -> int | None:
    """The rank that a launcher names as its first observed failure."""
    named = [finding.first for finding in findings if finding.first.facts.get("first") and finding.first.rank is not None]
    return named[0].rank if named else None


def _on_other_rank(finding: Finding, rank: int | None) -> bool:
    return rank is not None and bool(finding.ranks) and rank not in finding.ranks


def _may_explain(cause: Finding, effect: Finding) -> bool:
    """Whether `effect` can be a consequence of `cause`.

    Its rule must name the cause's. A note explains nothing, a warning about the configuration no error: training goes on with it. What
    only a notice tells of explains nothing either. Of two rules that name each other the earlier finding is the cause.
    """
    if cause is effect or not _is_named(cause, effect):
        return False
    if cause.rule.fallback:
        return _earlier_or_elsewhere(cause, effect)
    if cause.severity == "note" or is_harmless(cause):
        return False
    if cause.severity == "warning" and effect.severity == "error" and _from_config(cause):
        return False
    return not _is_named(effect, cause) or _order_key(cause) < _order_key(effect)


def _is_named(cause: Finding, effect: Finding) -> bool:
    """Whether a pattern of the effect's `explained_by` fits the cause's rule; `*/*` fits only what is at least as severe."""
    if cause.rule.id == effect.rule.id:
        return False
    as_severe = _SEVERITY[cause.severity] <= _SEVERITY[effect.severity] or cause.rule.fallback
    patterns = [pattern for pattern in effect.rule.explained_by if as_severe or pattern != "*/*"]
    return any(fnmatch.fnmatchcase(cause.rule.id, pattern) for pattern in patterns)


def _earlier_or_elsewhere(cause: Finding, effect: Finding) -> bool:
    """A traceback that no rule knows explains what comes after it in its file, and what stands in another file."""
    a, b = cause.first.where, effect.first.where
    return a.file != b.file or a.line is None or b.line is None or a.line < b.line


def _is_unsure(finding: Finding) -> bool:
    return finding.confidence < MIN_ROOT_CONFIDENCE and not finding.rule.fallback


def _order_key(finding: Finding) -> tuple[int, int]:
    return (finding.first.attempt, finding.order)


def _role(finding: Finding, root: Finding | None, explanation: Finding | None) -> RankedFinding:
    if finding is root:
        return RankedFinding(finding, "root")
    if explanation is not None:
        return RankedFinding(finding, "consequence", explanation.rule.id)
    return RankedFinding(finding, "contributing")


def _report_order(ranked: RankedFinding) -> tuple[Any, ...]:
    finding = ranked.finding
    return (_ROLE[ranked.role], _SEVERITY[finding.severity], -finding.confidence, finding.order)
