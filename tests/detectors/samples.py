"""Series and rules for the tests of detectors: hand-made losses, fed as steps through the shipped rules."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from doctor.core.events import ConfigSeen, Event, Fact, Sample, Step, Where
from doctor.detectors.registry import DETECTORS
from doctor.diagnosis.engine import Engine
from doctor.rulebook import loader
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Rule

NAN = math.nan
CONFIG = Where("train.yaml", 1)


@functools.cache
def metric_rules() -> tuple[Rule, ...]:
    """The shipped rules whose detector reads steps or readings of the machine."""
    return tuple(rule for rule in loader.load().rules if {Step, Sample} & set(DETECTORS[rule.detector].reads))


def steps(first: int = 1, attempt: int = 0, rank: int | None = None, **series: Sequence[float | None]) -> list[Step]:
    """One step a value, from `first` on; `seconds` is the time since training began."""
    out = []
    for place in range(max(map(len, series.values()))):
        metrics = {name: float(row[place]) for name, row in series.items() if place < len(row) and row[place] is not None}
        seconds = metrics.pop("seconds", None)
        where = Where("trainer_log.jsonl", place + 1, first + place)
        out.append(Step(where=where, step=first + place, metrics=metrics, attempt=attempt, rank=rank, seconds=seconds))
    return out


def diagnose(
    *events: Sequence[Event], config: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Finding]:
    """What the shipped rules on steps find, notes left out, by rule id."""
    engine = Engine(metric_rules())
    if config:
        engine.feed(ConfigSeen(where=CONFIG, values=dict(config)))
    for name, value in (facts or {}).items():
        engine.feed(Fact(where=CONFIG, name=name, value=value))
    for part in events:
        for event in part:
            engine.feed(event)
    assert not engine.problems, engine.problems
    return {finding.rule.id: finding for finding in engine.findings() if finding.rule.severity != "note"}


def falling(number: int, noise: float = 0.03, seed: int = 0, start: float = 2.2, end: float = 1.1) -> list[float]:
    """A healthy training loss: falls quickly, then slowly, with log-normal noise."""
    rng = random.Random(seed)
    return [(end + (start - end) * math.exp(-8 * i / number)) * math.exp(rng.gauss(0, noise)) for i in range(number)]
