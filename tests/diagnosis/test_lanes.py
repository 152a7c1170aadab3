"""Live order equals file order: real runs, all shipped rules, the metric lane and the text lane interleaved at random."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doctor.core.events import ConfigSeen, Event, Sample, Step
from doctor.diagnosis import causes
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.feeding import feed
from doctor.readers import reading as readers
from doctor.rulebook import loader

FIXTURES = Path(__file__).parents[2] / "fixtures"
NAMES = [
    "gpu_oom_activations-one-rank",
    "lr_too_high-saturated",
    "nonfinite_cause_unknown-attention",
    "healthy-sft-eval",
    "disk_full-two-ranks",
]


@cache
def lanes(name: str) -> tuple[tuple[Event, ...], tuple[Event, ...], tuple[Event, ...]]:
    """A fixture's configs, its metric lane and its text lane (facts come with the text that tells them)."""
    events = list(readers.read([FIXTURES / name], literals=Engine(loader.load().rules).literals).events())
    first = tuple(event for event in events if isinstance(event, ConfigSeen))
    metrics = tuple(event for event in events if isinstance(event, Step | Sample))
    text = tuple(event for event in events if not isinstance(event, ConfigSeen | Step | Sample))
    return first, metrics, text


def told(name: str, order: random.Random | None) -> list[tuple]:
    first, metrics, text = lanes(name)
    engine = Engine(loader.load().rules)
    for event in first:
        engine.feed(event)
    queues = [list(reversed(metrics)), list(reversed(text))]
    while any(queues):
        metric_next = queues[0] and (not queues[1] or order is None or order.random() < len(queues[0]) / (len(queues[0]) + len(queues[1])))
        engine.feed(queues[0 if metric_next else 1].pop())
    assert engine.problems == []
    judged = causes.assign_roles(engine.findings())
    return [
        (j.role, j.explained_by, j.finding.rule.id, j.finding.count, j.finding.ranks, j.finding.steps, j.finding.first.where)
        for j in judged
    ]


STEADY = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())[::5]


@pytest.mark.parametrize("name", STEADY)
def test_many_steps_at_once_tell_what_they_tell_one_by_one(name):
    """Findings with their counts, steps and places, and the series."""
    said = []
    for whole in (False, True):
        engine = Engine(loader.load().rules)
        reading = readers.read([FIXTURES / name], literals=engine.literals)
        feed(engine, reading.batches() if whole else reading.events())
        assert engine.problems == []
        said.append((repr(engine.findings()), {name: list(series) for name, series in engine.run.series.items()}))
    assert repr(said[0]) == repr(said[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_real_run_reads_the_same_however_its_lanes_interleave(name):
    """Findings, roles, counts, ranks, steps and places do not depend on which lane is ahead."""

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 10**9))
    def interleaved(seed: int) -> None:
        assert told(name, random.Random(seed)) == told(name, None)

    interleaved()
