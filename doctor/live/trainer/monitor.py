"""The engine, fed with a journal's lines while they are written: findings before the run is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from doctor.core.events import Event, Step
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.tools import Tools
from doctor.readers.journal import Parser
from doctor.readers.merge import Sequencer
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Rule
from doctor.words import catalogue


class Monitor:
    """`line` takes a journal's lines in order; `tell` gets one sentence for each rule's first error or warning.

    Rules of plugins count as in `analyze`. Detectors that decide at the end of a run stay silent here; `findings` gives everything
    known so far. Raises DoctorError with the first line if a plugin's rule cannot be read.
    """

    def __init__(self, tell: Callable[[str], None], name: str = "lfdoctor.jsonl") -> None:
        self._tell = tell
        self._engine: Engine | None = None
        self._parser = Parser(name)
        self._sequencer = Sequencer()
        self._line_number = 0
        self._reported: set[str] = set()

    @property
    def engine(self) -> Engine:
        """Created with the first event: the rules are read on the thread that watches, not on the training's."""
        if self._engine is None:
            tools = Tools.load()
            self._engine = Engine(tools.book.rules, tools.detectors)
        return self._engine

    def line(self, raw: bytes) -> None:
        """One line of the journal."""
        self._line_number += 1
        for event in self._parser.line(raw, self._line_number):
            ready = self._merged(event) if isinstance(event, Step) else event
            if ready is not None:
                self._feed(ready)

    def close(self) -> None:
        """The journal has ended: the last step is complete."""
        held, self._sequencer.current = self._sequencer.current, None
        if held is not None:
            self._feed(held)

    def findings(self) -> list[Finding]:
        """What all rules say of the lines so far."""
        return self.engine.findings()

    def _merged(self, step: Step) -> Step | None:
        """The previous step once no more of its lines can come."""
        return self._sequencer.feed(step) if step.metrics else None

    def _feed(self, event: Event) -> None:
        news = {rule for rule, _ in self.engine.feed(event)} - self._reported
        if not news:
            return
        for finding in self.engine.findings():
            rule = finding.rule
            if rule.id in news and rule.severity in ("error", "warning"):
                self._reported.add(rule.id)
                self._tell(alert(finding))


def alert(finding: Finding) -> str:
    """One sentence about a finding, in the user's language."""
    rule, facts, lang = finding.rule, finding.first.facts, catalogue.user_language()
    known = {"severity": catalogue.texts("report.severity")[rule.severity], "title": title(rule, facts, lang), "rule": rule.id}
    step = finding.steps[0] if finding.steps else facts.get("after_step")
    if step is None:
        return catalogue.say("live.alert_at_place", lang, place=finding.first.where, **known)
    return catalogue.say("live.alert_at_step", lang, step=step, **known)


def title(rule: Rule, facts: Mapping[str, Any], lang: str = "en") -> str:
    """The rule's title with the facts of a match; the rule's id where a fact is missing."""
    try:
        return rule.title.get(lang).format_map(facts)
    except (KeyError, ValueError, TypeError):
        return rule.id
