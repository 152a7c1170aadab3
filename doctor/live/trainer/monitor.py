"""The engine, fed with a journal's lines while they are written: what a user should know before the run is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from doctor.core.events import Event, Step, Where
from doctor.diagnosis.engine import Engine
from doctor.readers.journal import Parser
from doctor.readers.merge import Sequencer
from doctor.rulebook import loader
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Rule
from doctor.words import catalogue

CERTAIN = ("divergence", "nonfinite")
"""Symptoms of an error that no later step heals: these may stop a run, if its user wants that."""


class Monitor:
    """`line` takes a journal's lines in order; `tell` gets one sentence for each rule's first error or warning.

    A detector that says something only at the run's end stays silent here; `findings` gives everything known so far.
    """

    def __init__(self, tell: Callable[[str], None], name: str = "lfdoctor.jsonl") -> None:
        self._tell = tell
        self._engine: Engine | None = None
        self._parser = Parser(name)
        self._sequencer = Sequencer()
        self._number = 0
        self._told: set[str] = set()

    @property
    def engine(self) -> Engine:
        """Made with the first event, so that the rules are read on the thread that watches."""
        if self._engine is None:
            self._engine = Engine(loader.load().rules)
        return self._engine

    def line(self, raw: bytes) -> None:
        """One line of the journal."""
        self._number += 1
        for event in self._parser.line(raw, self._number):
            ready = self._joined(event) if isinstance(event, Step) else event
            if ready is not None:
                self._feed(ready)

    def close(self) -> None:
        """The last step can change no more."""
        held, self._sequencer.held = self._sequencer.held, None
        if held is not None:
            self._feed(held)

    def findings(self) -> list[Finding]:
        """What all rules say of the lines so far."""
        return self.engine.findings()

    def _joined(self, step: Step) -> Step | None:
        return self._sequencer.feed(step) if step.metrics else None

    def _feed(self, event: Event) -> None:
        news = {rule for rule, _ in self.engine.feed(event)} - self._told
        if not news:
            return
        for finding in self.engine.findings():
            rule = finding.rule
            if rule.id in news and rule.severity in ("error", "warning"):
                self._told.add(rule.id)
                self._tell(alert(finding))


class StopJudge:
    """Looks at logged metrics only, inline: the same logs give the same answer on every rank."""

    def __init__(self, rules: Iterable[Rule] | None = None) -> None:
        known = loader.load().rules if rules is None else rules
        self._engine = Engine(rule for rule in known if rule.severity == "error" and rule.symptom in CERTAIN)

    def step(self, step: int, metrics: dict[str, float]) -> str | None:
        """The title of the rule that says this run is lost, or None. Clock and memory differ between ranks: not looked at."""
        shared = {name: value for name, value in metrics.items() if not name.endswith(("_seconds", "_gib")) and "alloc" not in name}
        news = self._engine.feed(Step(where=Where("the log", step=step), step=step, metrics=shared))
        rules = {rule.id: rule for rule in self._engine.rules}
        return title(rules[news[0][0]], news[0][1].facts) if news else None


def alert(finding: Finding) -> str:
    """One sentence about a finding, in the user's language."""
    rule, facts, lang = finding.rule, finding.first.facts, catalogue.user_language()
    known = {"severity": catalogue.texts("report.severity")[rule.severity], "title": title(rule, facts, lang), "rule": rule.id}
    step = finding.steps[0] if finding.steps else facts.get("after_step")
    if step is None:
        return catalogue.say("live.alert_at_place", lang, place=finding.first.where, **known)
    return catalogue.say("live.alert_at_step", lang, step=step, **known)


def title(rule: Rule, facts: Mapping[str, Any], lang: str = "en") -> str:
    """The rule's title, with the match's facts where it asks for them."""
    try:
        return rule.title.in_language(lang).format_map(facts)
    except (KeyError, ValueError, TypeError):
        return rule.id
