"""Runs a rule's own examples: what it must recognise, what it must not, and what its remedies change."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from doctor.core.events import ConfigSeen, Crash, Event, Fact, LogLine, Sample, Step, Where
from doctor.detectors.base import Detector
from doctor.diagnosis.engine import Engine
from doctor.planner import plan
from doctor.readers import reading
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding
from doctor.rulebook.model import FixExample, LineExample, Rule, Rulebook

_RAISED = re.compile(
    r"^(?P<exception>(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Warning|Failure)?)(?:: (?P<message>.*))?$", re.DOTALL
)
_RANK = re.compile(r"^\s*(?:\[rank\d+\]:|\[[^\]\s]+\]:)\s*")
_PLACE = Where("example", 1)


def check_rule(rule: Rule, detectors: Mapping[str, type[Detector]], book: Rulebook | None = None) -> list[str]:
    """What the rule's examples say against it, one sentence each; empty if it keeps them all.

    With a rulebook its `fix` cases are planned too (the shared remedies are part of the rule already).
    """
    return [
        *(problem for i, one in enumerate(rule.examples.match) for problem in _check_match(rule, f"match[{i}]", one, detectors)),
        *(problem for i, one in enumerate(rule.examples.no_match) for problem in _check_no_match(rule, f"no_match[{i}]", one, detectors)),
        *(problem for i, one in enumerate(rule.examples.fix) for problem in _check_fix(rule, f"fix[{i}]", one, book or Rulebook((rule,)))),
    ]


def _check_match(rule: Rule, name: str, example: LineExample, detectors: Mapping[str, type[Detector]]) -> Iterator[str]:
    found = [finding for form in forms(example) for finding in findings(rule, form, detectors)]
    if not found:
        yield f"{name} is not recognised: {_shown(example)}"
        return
    seen = [one.first.facts for one in found]
    for key, wanted in example.facts.items():
        if not any(_same(facts.get(key), wanted) for facts in seen):
            yield f"{name}: fact {key} is {seen[0].get(key)!r}, not {wanted!r}"


def _check_no_match(rule: Rule, name: str, example: LineExample, detectors: Mapping[str, type[Detector]]) -> Iterator[str]:
    if any(findings(rule, form, detectors) for form in forms(example)):
        yield f"{name} is recognised, but must not be: {_shown(example)}"


def _check_fix(rule: Rule, name: str, example: FixExample, book: Rulebook) -> Iterator[str]:
    """The changes of the named remedy, or of all that the plan applies; a new output_dir is every patch's and is left out."""
    match = Match(evidence=(Evidence(_PLACE, rule.id),), facts=example.facts)
    found = Finding(rule=rule, first=match, count=1, ranks=(), steps=None, evidence=match.evidence, order=0)
    engine = Engine(())
    engine.feed(ConfigSeen(where=_PLACE, values=example.config))
    advice = plan.plan([RankedFinding(found, "root")], engine.run, book).advice[0]
    named = (
        [one for one in advice if one.remedy.id == example.remedy]
        if example.remedy
        else [one for one in advice if one.status == "apply"][:1]
    )
    if example.remedy and not named:
        yield f"{name}: no remedy {example.remedy}"
        return
    got = {change.key: change.new for one in named for change in one.changes if change.key != "output_dir"}
    if got != example.change:
        yield f"{name}: the remedy changes {got}, not {example.change}"


def findings(rule: Rule, events: list[Event], detectors: Mapping[str, type[Detector]]) -> list[Finding]:
    """What the rule alone says of these events."""
    engine = Engine([rule], detectors)
    for event in events:
        engine.feed(event)
    return engine.findings()


def forms(example: LineExample) -> list[list[Event]]:
    """The example as events; a single line once as a line and, where it reads like one, once as the last line of a traceback."""
    known: list[Event] = [Fact(where=_PLACE, name=name, value=value) for name, value in example.given.items()]
    if example.config is not None:
        known.append(ConfigSeen(where=_PLACE, values=example.config))
    if example.series is not None:
        known += _steps(example.series)
    if example.text is not None:
        return [[*known, *_console(example.text)]]
    if example.line is None:
        return [known]
    phase = example.given.get("phase")
    text = _RANK.sub("", example.line)
    events: list[list[Event]] = [[*known, LogLine(where=_PLACE, text=text, phase=phase)]]
    if raised := _RAISED.match(text):
        events.append([*known, Crash(where=_PLACE, exception=raised["exception"], message=raised["message"] or "", phase=phase)])
    return events


def _console(text: str) -> list[Event]:
    """What the readers make of a console of this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "console.log")
        path.write_text(text, encoding="utf-8")
        return list(reading.read([path]).events())


def _steps(series: Mapping[str, list[float | str | None]]) -> Iterator[Event]:
    """Metrics by name; `seconds` is time since training began, `rank1.loss` one of rank 1, `samples.gpu.0.used_gib` a reading a minute
    (`samples.rank1.own_seconds` one of rank 1)."""
    for step in range(1, max(map(len, series.values()), default=0) + 1):
        values = {name: float(row[step - 1] or 0) for name, row in series.items() if len(row) >= step and row[step - 1] is not None}
        ranks: dict[int | None, dict[str, float]] = {}
        readings: dict[int | None, dict[str, float]] = {}
        for name, value in values.items():
            rest = name.removeprefix("samples.")
            found = re.fullmatch(r"rank(\d+)\.(.+)", rest)
            into = ranks if rest == name else readings
            into.setdefault(int(found[1]) if found else None, {})[found[2] if found else rest] = value
        for rank, metrics in ranks.items():
            yield Step(where=Where("example", step, step), step=step, seconds=metrics.pop("seconds", None), metrics=metrics, rank=rank)
        for rank, metrics in readings.items():
            yield Sample(where=_PLACE, metrics=metrics, seconds=60.0 * step, rank=rank)


def _same(got: Any, wanted: Any) -> bool:
    """Equal as a rule's author means it: groups of a regular expression are texts, numbers are compared as numbers."""
    if got is None or wanted is None:
        return got is wanted
    return bool(got == wanted) or str(got) == str(wanted)


def _shown(example: LineExample) -> str:
    text = example.line or example.text or str(example.series or example.config)
    return text if len(text) <= 160 else f"{text[:157]}..."
