"""From the matches of a rule to its finding, and from all findings to those that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from doctor.core.events import Where
from doctor.rulebook.findings import Evidence, Finding, Match
from doctor.rulebook.model import Rule

LANE_WIDTH = 1 << 48
"""Orders are numbered inside a lane: text from 0, metrics from this, config and facts from twice this. A live run has no other order."""
KEPT_MATCHES = 64
"""Of one detector and key the first matches are kept whole; later ones are counted only."""


class MatchGroup(msgspec.Struct):
    """The matches of one detector and key so far, each with its order (mutable, bounded)."""

    matches: list[tuple[int, Match]] = []
    count: int = 0
    ranks: set[int] = set()
    last_step: int | None = None

    def add(self, order: int, match: Match, times: int = 1) -> bool:
        """Counts a match that came so many times; True if it is kept whole."""
        self.count += times
        if match.rank is not None:
            self.ranks.add(match.rank)
        if match.steps is not None:
            self.last_step = max(self.last_step or match.steps[1], match.steps[1])
        if len(self.matches) >= KEPT_MATCHES:
            return False
        self.matches.append((order, match))
        return True


def without_superseded(matches: Sequence[tuple[int, Match]]) -> Sequence[tuple[int, Match]]:
    """The matches without those of an episode whose end a later match tells (`closes`)."""
    if not any(match.closes for _, match in matches):
        return matches
    last = {(match.attempt, match.steps[0]): order for order, match in matches if match.closes and match.steps}
    return [(order, match) for order, match in matches if not match.steps or order >= last.get((match.attempt, match.steps[0]), order)]


def merge(rule: Rule, kept: Sequence[tuple[int, Match]], group: MatchGroup, collected: int) -> Finding:
    """One finding of the matches that meet the rule's conditions.

    Counts, ranks and the last step of the whole group are taken where none of its `collected` matches was refused.
    """
    order, first = kept[0]
    all_kept = len(kept) == collected
    ranks = {match.rank for _, match in kept if match.rank is not None} | (group.ranks if all_kept else set())
    steps = [match.steps for _, match in kept if match.steps]
    span = None
    if steps:
        last = max(stop for _, stop in steps)
        span = (min(start for start, _ in steps), max(last, group.last_step or last) if all_kept else last)
    pieces: dict[Where, Evidence] = {piece.where: piece for _, match in reversed(kept) for piece in reversed(match.evidence)}
    count = max(len(kept), group.count if all_kept else 0)
    evidence = tuple(reversed(list(pieces.values())))
    return Finding(
        rule=rule,
        first=first,
        count=count,
        ranks=tuple(sorted(ranks)),
        steps=span,
        evidence=evidence,
        order=order,
        notice=all(match.notice for _, match in kept),
    )


def most_specific(found: Sequence[Finding]) -> list[Finding]:
    """Drops each finding of which another one is a more specific or a surer form (`takes_precedence`) at the same place.

    An option that the config shows and a message names is one thing: the finding that stays takes the other's evidence and order.
    """
    parents = {finding.rule.id: finding.rule.refines for finding in found}
    lines = {id(finding): {piece.where for piece in finding.evidence if piece.where.line is not None} for finding in found}
    dropped: set[int] = set()
    folded: dict[int, list[Finding]] = {}
    for a in found:
        for b in found:
            same_place = not lines[id(a)].isdisjoint(lines[id(b)]) or _overlap(a.steps, b.steps)
            if a is not b and (same_place or _same_option(a, b)) and takes_precedence(a, b, parents):
                dropped.add(id(b))
                if _same_option(a, b):
                    folded.setdefault(id(a), []).append(b)
    return [_merge_evidence(finding, folded.get(id(finding), [])) for finding in found if id(finding) not in dropped]


def takes_precedence(a: Finding, b: Finding, parents: Mapping[str, Sequence[str]]) -> bool:
    """Whether `a` replaces `b`: `b` is a fallback; or `a` refines it; or both refine one rule and `a` is the surer.

    At equal confidence the deeper refinement wins, then the longer condition, then the id.
    """
    if a.rule.fallback != b.rule.fallback:
        return b.rule.fallback
    above_a, above_b = _ancestors(a.rule.id, parents), _ancestors(b.rule.id, parents)
    if b.rule.id in above_a:
        return True
    if a.rule.id in above_b or not set(above_a) & set(above_b):
        return False
    return _precedence_key(a, len(above_a)) > _precedence_key(b, len(above_b))


def _precedence_key(finding: Finding, depth: int) -> tuple[Any, ...]:
    return (finding.confidence, depth, len(str(finding.rule.where)), finding.rule.id)


def _overlap(a: tuple[int, int] | None, b: tuple[int, int] | None) -> bool:
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def _same_option(a: Finding, b: Finding) -> bool:
    """One comes from the config, the other from the log, and one refines the other: a run has only one config."""
    lanes = {a.order // LANE_WIDTH, b.order // LANE_WIDTH}
    return lanes == {0, 2} and (b.rule.id in a.rule.refines or a.rule.id in b.rule.refines)


def _merge_evidence(finding: Finding, others: Sequence[Finding]) -> Finding:
    if not others:
        return finding
    evidence = dict.fromkeys((*finding.evidence, *(piece for other in others for piece in other.evidence)))
    return msgspec.structs.replace(finding, evidence=tuple(evidence), order=min(finding.order, *(other.order for other in others)))


def _ancestors(rule_id: str, parents: Mapping[str, Sequence[str]]) -> list[str]:
    """All rules that `rule_id` refines, nearest first, whether they found something or not."""
    out: list[str] = []
    queue = list(parents.get(rule_id, []))
    while queue:
        parent = queue.pop(0)
        if parent not in out:
            out.append(parent)
            queue += parents.get(parent, [])
    return out
