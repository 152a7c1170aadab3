"""Events in, findings out: the same object serves the live callback and the offline analysis.

Matches are collected as they come; `findings()` decides (conditions on config and facts, `refines`, merging over ranks), so the
answer does not depend on how the metric lane and the text lane interleave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from doctor.config.options import scope_of
from doctor.core.events import ConfigSeen, Crash, Event, Fact, LogLine, ProcessEnd, Sample, Step, Where
from doctor.core.run import Run
from doctor.detectors.base import QUIET, Detector
from doctor.detectors.registry import DETECTORS
from doctor.rulebook.conditions import holds
from doctor.rulebook.findings import Evidence, Finding, Match, UncheckedRule
from doctor.rulebook.model import Rule
from doctor.support.literal_search import LinePatterns, MultiSearch

_LANES: dict[type[Event], int] = {LogLine: 0, Crash: 0, ProcessEnd: 0, Step: 1, Sample: 1, ConfigSeen: 2, Fact: 2}
_LANE_WIDTH = 1 << 48
"""Places are numbered inside a lane, text before metrics before config: between lanes there is no order that a live run would share."""

KEPT_MATCHES = 64
"""Of one rule and key at most this many matches are kept whole (the first ones); later ones are only counted."""


class MatchGroup(msgspec.Struct):
    """All matches of one detector and key so far (mutable, bounded)."""

    matches: list[tuple[int, Match]] = []
    count: int = 0
    ranks: set[int] = set()
    last_step: int | None = None


class Subscription(NamedTuple):
    """A detector and its bound `feed`, looked up once: 13 kinds at one call site cost more to look up than some cost to run."""

    key: bytes
    feed: Callable[[Event, Run], Iterator[Match]]
    detector: Detector


class LiteralRouter:
    """The detectors of one kind of text, found by the literals that stand in it."""

    def __init__(self, detectors: list[Subscription]) -> None:
        self._detectors = detectors
        self._of_literal: dict[str, list[int]] = {}
        self._always = [place for place, ear in enumerate(detectors) if not ear.detector.literals]
        for place, ear in enumerate(detectors):
            for literal in ear.detector.literals:
                self._of_literal.setdefault(literal, []).append(place)
        self._literals = MultiSearch(self._of_literal)

    def matching_detectors(self, text: str) -> list[Subscription]:
        """In the order of the rules."""
        places = {place for literal in self._literals.find(text) for place in self._of_literal[literal]}
        return [self._detectors[place] for place in sorted(places.union(self._always))]


class Engine:
    """`feed` events in lane order, then ask `findings()` and `blind()`, at any time and as often as wanted."""

    def __init__(self, rules: Iterable[Rule], detectors: Mapping[str, type[Detector]] = DETECTORS) -> None:
        self.run = Run()
        self.rules = tuple(rules)
        self.problems: list[str] = []
        self._orders = [0, 0, 0]
        self._place = 0
        self._detectors: dict[bytes, Detector] = {}
        self._of_rule: dict[str, bytes] = {}
        self._seen: dict[bytes, dict[str, MatchGroup]] = {}
        self._finished: dict[bytes, list[tuple[int, Match]]] = {}
        for rule in self.rules:
            self._of_rule[rule.id] = self._add(rule, detectors)
        self._lanes: dict[type[Event], list[Subscription]] = {}
        for key, detector in self._detectors.items():
            for kind in detector.reads:
                self._lanes.setdefault(kind, []).append(Subscription(key, detector.feed, detector))
        self._texts: dict[type[Event], LiteralRouter] = {}

    def _add(self, rule: Rule, detectors: Mapping[str, type[Detector]]) -> bytes:
        key = msgspec.json.encode([rule.detector, rule.params], order="sorted")
        if key not in self._detectors:
            self._detectors[key] = detectors[rule.detector](**rule.params)
            self._seen[key] = {}
        return key

    @property
    def literals(self) -> frozenset[str]:
        """The strings of which one stands in every line that any rule wants; readers may drop other lines unless a detector wants all."""
        return frozenset(literal for ear in self._lanes.get(LogLine, ()) for literal in ear.detector.literals)

    @property
    def line_patterns(self) -> LinePatterns:
        """The same more narrowly, for logs in which many lines hold literals."""
        ears = [ear.detector for ear in self._lanes.get(LogLine, ())]
        expressions = [one for detector in ears for one in getattr(detector, "expressions", map(re.escape, detector.literals))]
        markers = [one for detector in ears for one in getattr(detector, "markers", ())]
        return LinePatterns(tuple(dict.fromkeys(expressions)), tuple(dict.fromkeys(markers)))

    def feed(self, event: Event) -> list[tuple[str, Match]]:
        """Takes one event; returns new matches as (rule id, match), those whose conditions hold for what is known by now."""
        run = self.run
        run.apply(event)
        lane = _LANES[type(event)]
        self._orders[lane] += 1
        self._place = lane * _LANE_WIDTH + self._orders[lane]
        if self._finished:
            self._finished.clear()
        news: list[bytes] = []
        for key, listen, detector in self._subscribers(event):
            try:
                found = listen(event, run)
                if found is QUIET:
                    continue
                for match in found:
                    if self._keep(key, match):
                        news.append(key)
            except Exception as error:
                self._record_error(detector, "feed", error)
        return self._announce(news) if news else []

    def feed_all(self, steps: Sequence[Step]) -> None:
        """As `feed` for each of these steps, one detector after the other: the same findings, nothing is announced.

        A detector of steps looks at `run`'s series when it finishes, not before, so it need not see them grow.
        """
        self.run.apply_all(steps)
        self._finished.clear()
        lane = _LANES[Step]
        begun, run = lane * _LANE_WIDTH + self._orders[lane] + 1, self.run
        self._orders[lane] += len(steps)
        for key, listen, detector in self._lanes.get(Step, ()):
            for place, step in enumerate(steps, begun):
                try:
                    found = listen(step, run)
                    if found is QUIET:
                        continue
                    self._place = place
                    for match in found:
                        self._keep(key, match)
                except Exception as error:
                    self._record_error(detector, "feed", error)

    def _subscribers(self, event: Event) -> Sequence[Subscription]:
        """The detectors that this event may tell something. A traceback without its last line has no text to choose them by."""
        if isinstance(event, LogLine) or (isinstance(event, Crash) and event.exception):
            kind = type(event)
            if kind not in self._texts:
                self._texts[kind] = LiteralRouter(self._lanes.get(kind, []))
            return self._texts[kind].matching_detectors(event.text)
        return self._lanes.get(type(event), ())

    def _record_error(self, detector: Detector, what: str, error: Exception) -> None:
        """A detector that fails costs its own answer only; the report says so."""
        problem = f"{type(detector).__name__}.{what}: {type(error).__name__}: {error}"
        if problem not in self.problems and len(self.problems) < 100:
            self.problems.append(problem)

    def _keep(self, key: bytes, match: Match) -> bool:
        """Whether the match is kept whole."""
        seen = self._seen[key].setdefault(match.key, MatchGroup())
        seen.count += 1
        if match.rank is not None:
            seen.ranks.add(match.rank)
        if match.steps is not None:
            seen.last_step = max(seen.last_step or match.steps[1], match.steps[1])
        if len(seen.matches) >= KEPT_MATCHES:
            return False
        seen.matches.append((self._place, match))
        return True

    def _announce(self, keys: list[bytes]) -> list[tuple[str, Match]]:
        return [
            (rule.id, seen.matches[-1][1])
            for rule in self.rules
            if self._of_rule[rule.id] in keys
            for seen in self._seen[self._of_rule[rule.id]].values()
            if seen.matches and seen.matches[-1][0] == self._place and self._holds(rule, seen.matches[-1][1])
        ]

    def _holds(self, rule: Rule, match: Match) -> bool:
        return not rule.where or holds(rule.where, scope_of(self.run, match.facts))

    def findings(self) -> list[Finding]:
        """What all rules say of the events so far, as if the run ended here; specific rules replace the ones they refine."""
        found = [finding for rule in self.rules for finding in self._judge(rule)]
        return sorted(_most_specific(found), key=lambda finding: finding.order)

    def _judge(self, rule: Rule) -> Iterator[Finding]:
        key = self._of_rule[rule.id]
        groups = {name: (list(seen.matches), seen) for name, seen in self._seen[key].items()}
        for order, match in self._finish(key):
            matches, _ = groups.setdefault(match.key, ([], MatchGroup()))
            matches.append((order, match))
        for matches, seen in groups.values():
            kept = [(order, match) for order, match in matches if self._holds(rule, match)]
            if kept:
                yield _merge(rule, kept, seen, len(matches))

    def _finish(self, key: bytes) -> list[tuple[int, Match]]:
        if key not in self._finished:
            detector = self._detectors[key]
            try:
                lane = _LANES[detector.reads[0]]
                place = lane * _LANE_WIDTH + self._orders[lane] + 1
                self._finished[key] = [(place, match) for match in detector.finish(self.run)]
            except Exception as error:
                self._record_error(detector, "finish", error)
                self._finished[key] = []
        return self._finished[key]

    def blind(self) -> list[UncheckedRule]:
        """The rules that could not look, each with the first thing it missed."""
        out = []
        for rule in self.rules:
            missing = [need for need in self._detectors[self._of_rule[rule.id]].needs if not self._has_input(need)]
            if missing:
                out.append(UncheckedRule(rule, missing[0]))
        return out

    def _has_input(self, need: str) -> bool:
        kind, _, name = need.partition(".")
        if kind == "metrics":
            return name in self.run.series
        if kind == "samples":
            return bool(self.run.samples) if not name else name in self.run.samples
        if kind == "text":
            return "text" in self.run.facts or bool({"LogLine", "Crash"} & self.run.seen)
        return {"config": bool(self.run.config), "steps": self.run.first_step is not None}.get(kind, False)


def _merge(rule: Rule, kept: list[tuple[int, Match]], seen: MatchGroup, whole: int) -> Finding:
    order, first = kept[0]
    ranks = {match.rank for _, match in kept if match.rank is not None}
    if len(kept) == whole:
        ranks |= seen.ranks
    steps = [match.steps for _, match in kept if match.steps]
    span = None
    if steps:
        last = max(stop for _, stop in steps)
        span = (min(start for start, _ in steps), max(last, seen.last_step or last) if len(kept) == whole else last)
    pieces: dict[Where, Evidence] = {piece.where: piece for _, match in reversed(kept) for piece in reversed(match.evidence)}
    evidence = tuple(reversed(list(pieces.values())))
    count = max(len(kept), seen.count if len(kept) == whole else 0)
    return Finding(rule=rule, first=first, count=count, ranks=tuple(sorted(ranks)), steps=span, evidence=evidence, order=order)


def _most_specific(found: list[Finding]) -> list[Finding]:
    """Drops a finding whose every place is told by one that refines it, and of several forms of one thing keeps the best.

    What the config shows and a message says is one thing: the finding that stays takes the other's evidence and place.
    """
    parents = {finding.rule.id: finding.rule.refines for finding in found}
    lines = {id(finding): {piece.where for piece in finding.evidence if piece.where.line is not None} for finding in found}
    dropped: set[int] = set()
    folded: dict[int, list[Finding]] = {}
    for a in found:
        for b in found:
            same_place = not lines[id(a)].isdisjoint(lines[id(b)]) or _overlap(a.steps, b.steps)
            if a is not b and (same_place or _same_option(a, b)) and _takes_precedence(a, b, parents):
                dropped.add(id(b))
                if _same_option(a, b):
                    folded.setdefault(id(a), []).append(b)
    return [_merge_evidence(finding, folded.get(id(finding), [])) for finding in found if id(finding) not in dropped]


def _overlap(a: tuple[int, int] | None, b: tuple[int, int] | None) -> bool:
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def _same_option(a: Finding, b: Finding) -> bool:
    """One sees in the config what the other tells from the log, as their rules say: there is only one config."""
    lanes = {a.order // _LANE_WIDTH, b.order // _LANE_WIDTH}
    return lanes == {0, 2} and (b.rule.id in a.rule.refines or a.rule.id in b.rule.refines)


def _merge_evidence(finding: Finding, others: list[Finding]) -> Finding:
    if not others:
        return finding
    evidence = dict.fromkeys((*finding.evidence, *(piece for other in others for piece in other.evidence)))
    return msgspec.structs.replace(finding, evidence=tuple(evidence), order=min(finding.order, *(other.order for other in others)))


def _takes_precedence(a: Finding, b: Finding, parents: Mapping[str, list[str]]) -> bool:
    """`b` is a fallback, or `a` refines it, or both refine one rule and `a` is the surer (then the longer condition, then the id)."""
    if a.rule.fallback != b.rule.fallback:
        return b.rule.fallback
    above_a, above_b = _ancestors(a.rule.id, parents), _ancestors(b.rule.id, parents)
    if b.rule.id in above_a:
        return True
    if a.rule.id in above_b or not set(above_a) & set(above_b):
        return False
    return _rank(a, len(above_a)) > _rank(b, len(above_b))


def _rank(finding: Finding, depth: int) -> tuple[Any, ...]:
    return (finding.confidence, depth, len(str(finding.rule.where)), finding.rule.id)


def _ancestors(rule_id: str, parents: Mapping[str, list[str]]) -> list[str]:
    """All rules that `rule_id` refines, nearest first; parents that found nothing themselves still count as common ground."""
    out: list[str] = []
    queue = list(parents.get(rule_id, []))
    while queue:
        parent = queue.pop(0)
        if parent not in out:
            out.append(parent)
            queue += parents.get(parent, [])
    return out
