"""Run a rule's own examples: what it must match, what it must not match, and what its remedies change."""

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
"""The last line of a traceback."""

_RANK = re.compile(r"^\s*(?:\[rank\d+\]:|\[[^\]\s]+\]:)\s*")
"""Rank prefix of a console line, as torch and torchrun write it."""

_PLACE = Where("example", 1)
"""Place of all events of an example."""


def check_rule(rule: Rule, detectors: Mapping[str, type[Detector]], book: Rulebook | None = None) -> list[str]:
    """Return a sentence per failed example; empty if all pass. `fix` examples are planned with `book`, by default of this rule alone."""
    examples, book = rule.examples, book or Rulebook((rule,))
    return [
        *(problem for i, example in enumerate(examples.match) for problem in _check_match(rule, f"match[{i}]", example, detectors)),
        *(
            problem
            for i, example in enumerate(examples.no_match)
            for problem in _check_no_match(rule, f"no_match[{i}]", example, detectors)
        ),
        *(problem for i, example in enumerate(examples.fix) for problem in _check_fix(rule, f"fix[{i}]", example, book)),
    ]


def _check_match(rule: Rule, name: str, example: LineExample, detectors: Mapping[str, type[Detector]]) -> Iterator[str]:
    found = [finding for form in forms(example) for finding in findings(rule, form, detectors)]
    if not found:
        yield f"{name} is not recognised: {_shown(example)}"
        return
    seen = [finding.first.facts for finding in found]
    for key, wanted in example.facts.items():
        if not any(_same(facts.get(key), wanted) for facts in seen):
            yield f"{name}: fact {key} is {seen[0].get(key)!r}, not {wanted!r}"


def _check_no_match(rule: Rule, name: str, example: LineExample, detectors: Mapping[str, type[Detector]]) -> Iterator[str]:
    if any(findings(rule, form, detectors) for form in forms(example)):
        yield f"{name} is recognised, but must not be: {_shown(example)}"


def _check_fix(rule: Rule, name: str, example: FixExample, book: Rulebook) -> Iterator[str]:
    """Compare the changes of the named remedy, or of the first the plan applies; the new output_dir of every patch is ignored."""
    match = Match(evidence=(Evidence(_PLACE, rule.id),), facts=example.facts)
    found = Finding(rule=rule, first=match, count=1, ranks=(), steps=None, evidence=match.evidence, order=0)
    engine = Engine(())
    engine.feed(ConfigSeen(where=_PLACE, values=example.config))
    advice = plan.plan([RankedFinding(found, "root")], engine.run, book).advice[0]
    named = (
        [item for item in advice if item.remedy.id == example.remedy]
        if example.remedy
        else [item for item in advice if item.status == "apply"][:1]
    )
    if example.remedy and not named:
        yield f"{name}: no remedy {example.remedy}"
        return
    got = {change.key: change.new for item in named for change in item.changes if change.key != "output_dir"}
    if got != example.change:
        yield f"{name}: the remedy changes {got}, not {example.change}"


def findings(rule: Rule, events: list[Event], detectors: Mapping[str, type[Detector]]) -> list[Finding]:
    """The findings of this rule alone for these events."""
    engine = Engine([rule], detectors)
    for event in events:
        engine.feed(event)
    return engine.findings()


def forms(example: LineExample) -> list[list[Event]]:
    """The example as event lists. A single line gives a log line and, if it looks like an exception, also a traceback."""
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
    """The events the readers produce for a console with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "console.log")
        path.write_text(text, encoding="utf-8")
        return list(reading.read([path]).events())


def _steps(series: Mapping[str, list[float | str | None]]) -> Iterator[Event]:
    """Events of metrics by name.

    `seconds` is the time since training began. The prefix `rank1.` sets the rank; the prefix `samples.` makes a sample per minute
    (`samples.gpu.0.used_gib`, `samples.rank1.own_seconds`).
    """
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
    """Equality for a rule's author: a named group, which is a string, may equal a number."""
    if got is None or wanted is None:
        return got is wanted
    return bool(got == wanted) or str(got) == str(wanted)


def _shown(example: LineExample) -> str:
    text = example.line or example.text or str(example.series or example.config)
    return text if len(text) <= 160 else f"{text[:157]}..."
