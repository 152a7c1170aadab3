"""Events in, findings out: the same object serves the live callback and the offline analysis.

Matches are collected as they come; `findings()` decides (conditions on config and facts, `refines`, merging over ranks). The answer
therefore does not depend on how text and metrics interleave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from doctor.config.options import scope_of
from doctor.core.events import ConfigSeen, Crash, Event, Fact, LogLine, ProcessEnd, Sample, Step
from doctor.core.run import Run
from doctor.detectors.base import QUIET, Detector, decides_by_event
from doctor.diagnosis.causes import is_harmless
from doctor.diagnosis.refinement import LANE_WIDTH, MatchGroup, merge, most_specific, without_superseded
from doctor.diagnosis.subscriptions import LiteralRouter, Subscription
from doctor.rulebook.conditions import Condition, holds
from doctor.rulebook.findings import Finding, Match, UncheckedRule
from doctor.rulebook.model import Rule

_LANES: dict[type[Event], int] = {LogLine: 0, Crash: 0, ProcessEnd: 0, Step: 1, Sample: 1, ConfigSeen: 2, Fact: 2}
"""Lane of each kind of event: text, metrics, config. Between two lanes there is no order."""
_NOTICES = ("DEBUG", "INFO", "WARNING", "WARN")
_LAUNCHER = "torch/distributed/elastic"
_MOST_PROBLEMS = 100
"""Different failures of detectors that are remembered."""


def _is_notice(event: Event) -> bool:
    """Whether the event is a line by which a program says that it goes on, or one after the end of the training.

    torchrun reports processes that ended as warnings: those are none.
    """
    if not isinstance(event, LogLine):
        return False
    return (event.level in _NOTICES and _LAUNCHER not in event.text) or event.phase == "end"


def _times(event: Event) -> int:
    """How many lines the event stands for."""
    return event.repeats if isinstance(event, LogLine | Crash) else 1


def _all_detectors() -> Mapping[str, type[Detector]]:
    """Imported here: the check of a configuration, which brings its own few, need not import those of logs and metrics."""
    from doctor.detectors.registry import DETECTORS

    return DETECTORS


class Engine:
    """`feed` events in lane order, then ask `findings()` and `blind()`, at any time and any number of times."""

    def __init__(self, rules: Iterable[Rule], detectors: Mapping[str, type[Detector]] | None = None) -> None:
        self.run = Run()
        self.rules = tuple(rules)
        self.problems: list[str] = []
        self._counts = [0, 0, 0]
        self._order = 0
        self._detectors: dict[bytes, Detector] = {}
        self._of_rule: dict[str, bytes] = {}
        self._rules_of: dict[bytes, list[int]] = {}
        self._groups: dict[bytes, dict[str, MatchGroup]] = {}
        self._finished: dict[bytes, list[tuple[int, Match]]] = {}
        known = _all_detectors() if detectors is None else detectors
        for place, rule in enumerate(self.rules):
            key = self._of_rule[rule.id] = self._add(rule, known)
            self._rules_of.setdefault(key, []).append(place)
        self._subscriptions: dict[type[Event], list[Subscription]] = {}
        for key, detector in self._detectors.items():
            for kind in detector.reads if decides_by_event(detector) else ():
                self._subscriptions.setdefault(kind, []).append(Subscription(key, detector.feed, detector))
        self._routers: dict[type[Event], LiteralRouter] = {}

    def _add(self, rule: Rule, detectors: Mapping[str, type[Detector]]) -> bytes:
        """The key of the rule's detector: rules with the same `when:` share one."""
        key = msgspec.json.encode([rule.detector, rule.params], order="sorted")
        if key not in self._detectors:
            self._detectors[key] = detectors[rule.detector](**rule.params)
            self._groups[key] = {}
        return key

    @property
    def literals(self) -> frozenset[str]:
        """Strings of which one stands in every line that a rule can match; readers may drop the others if no detector wants all lines."""
        return frozenset(literal for subscription in self._subscriptions.get(LogLine, ()) for literal in subscription.detector.literals)

    def feed(self, event: Event) -> list[tuple[str, Match]]:
        """`take`; returns new matches as (rule id, match) whose conditions hold for what is known so far."""
        changed = self.take(event)
        return self._new_matches(changed) if changed else []

    def take(self, event: Event) -> list[bytes]:
        """Takes one event; returns the keys of the detectors with a new match."""
        run = self.run
        run.apply(event)
        lane = _LANES[type(event)]
        self._counts[lane] += 1
        self._order = lane * LANE_WIDTH + self._counts[lane]
        if self._finished:
            self._finished.clear()
        changed: list[bytes] = []
        for key, feed, detector in self._subscribers(event):
            try:
                found = feed(event, run)
                if found is QUIET:
                    continue
                for match in found:
                    if self._keep(key, replace(match, notice=True) if _is_notice(event) else match, _times(event)):
                        changed.append(key)
            except Exception as error:
                self._record_error(detector, "feed", error)
        return changed

    def feed_all(self, steps: Sequence[Step]) -> None:
        """As `feed` for each of these steps, one detector after the other: the same findings, but no new matches are returned.

        A detector of steps looks at `run`'s series in `finish` only, so it need not see them grow.
        """
        self.run.apply_all(steps)
        self._finished.clear()
        lane = _LANES[Step]
        first, run = lane * LANE_WIDTH + self._counts[lane] + 1, self.run
        self._counts[lane] += len(steps)
        for key, feed, detector in self._subscriptions.get(Step, ()):
            for order, step in enumerate(steps, first):
                try:
                    found = feed(step, run)
                    if found is QUIET:
                        continue
                    self._order = order
                    for match in found:
                        self._keep(key, match)
                except Exception as error:
                    self._record_error(detector, "feed", error)

    def _subscribers(self, event: Event) -> Sequence[Subscription]:
        """The detectors that can match the event. A traceback without its last line has no text to choose them by."""
        kind = type(event)
        if isinstance(event, LogLine) or (isinstance(event, Crash) and event.exception):
            if kind not in self._routers:
                self._routers[kind] = LiteralRouter(self._subscriptions.get(kind, []))
            return self._routers[kind].matching_detectors(event.text)
        return self._subscriptions.get(kind, ())

    def _record_error(self, detector: Detector, method: str, error: Exception) -> None:
        """A detector that fails loses its own answer only; the report names it."""
        problem = f"{type(detector).__name__}.{method}: {type(error).__name__}: {error}"
        if problem not in self.problems and len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)

    def _keep(self, key: bytes, match: Match, times: int = 1) -> bool:
        return self._groups[key].setdefault(match.key, MatchGroup()).add(self._order, match, times)

    def _new_matches(self, keys: list[bytes]) -> list[tuple[str, Match]]:
        return [
            (rule.id, group.matches[-1][1])
            for rule in (self.rules[place] for place in sorted({place for key in keys for place in self._rules_of[key]}))
            for group in self._groups[self._of_rule[rule.id]].values()
            if group.matches and group.matches[-1][0] == self._order and self._holds(rule, group.matches[-1][1])
        ]

    def _holds(self, rule: Rule, match: Match) -> bool:
        return not rule.where or self._is_met(rule.where, match)

    def _is_met(self, condition: Condition, match: Match) -> bool:
        return holds(condition, scope_of(self.run, match.facts))

    def findings(self) -> list[Finding]:
        """The findings of all rules on the events so far, as if the run ended here; specific rules replace the ones they refine."""
        found = [finding for rule in self.rules for finding in self._findings_of(rule) if not self._did_not_happen(finding)]
        return sorted(most_specific(found), key=lambda finding: finding.order)

    def _did_not_happen(self, finding: Finding) -> bool:
        """A failure that only notices tell of, in a run that completed."""
        return self.run.completed and is_harmless(finding)

    def _findings_of(self, rule: Rule) -> Iterator[Finding]:
        key = self._of_rule[rule.id]
        groups = {name: (list(group.matches), group) for name, group in self._groups[key].items()}
        for order, match in self._finish(key):
            matches, _ = groups.setdefault(match.key, ([], MatchGroup()))
            matches.append((order, match))
        for matches, group in groups.values():
            kept = [(order, match) for order, match in without_superseded(matches) if self._holds(rule, match)]
            if kept:
                is_note = rule.note_if is not None and all(self._is_met(rule.note_if, match) for _, match in kept)
                yield replace(merge(rule, kept, group, len(matches)), is_note=is_note)

    def _finish(self, key: bytes) -> list[tuple[int, Match]]:
        if key not in self._finished:
            detector = self._detectors[key]
            try:
                lane = _LANES[detector.reads[0]]
                order = lane * LANE_WIDTH + self._counts[lane] + 1
                self._finished[key] = [(order, match) for match in detector.finish(self.run)]
            except Exception as error:
                self._record_error(detector, "finish", error)
                self._finished[key] = []
        return self._finished[key]

    def blind(self) -> list[UncheckedRule]:
        """The rules that could not be checked, each with the first input that its detector misses."""
        missing = {key: detector.could_look(self.run) for key, detector in self._detectors.items()}
        return [UncheckedRule(rule, need) for rule in self.rules if (need := missing[self._of_rule[rule.id]]) is not None]
