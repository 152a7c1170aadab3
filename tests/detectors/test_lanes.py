"""Laws of all detectors of steps: asking early, cutting into parts and mixing with the other lane change nothing; memory is bounded."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.core.events import Event, LogLine, Step, Where
from doctor.diagnosis.engine import Engine
from tests.detectors.samples import NAN, falling, metric_rules, steps

VALUES = st.sampled_from([0.0, 1.0, 1.02, 0.97, 1.1, 3.0, 6.0, 0.4, NAN, -0.5])
LINE = LogLine(where=Where("console.log", 1), text="a line")


@st.composite
def runs(draw: st.DrawFn) -> list[Step]:
    """A falling loss with stretches of drawn values, NaN and zeros in it, gradients, rates, evaluations and a second attempt."""
    losses = falling(draw(st.integers(5, 60)), seed=draw(st.integers(0, 9)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, 59), VALUES), max_size=30)):
        if place < len(losses):
            losses[place] = losses[place] * value if value == value else NAN
    number = len(losses)
    grads: list[Any] = [0.8] * number
    for place in draw(st.lists(st.integers(0, 59), max_size=10)):
        if place < number:
            grads[place] = NAN
    evals = [1.0 + 0.1 * i if i % 7 == 0 else None for i in range(number)]
    rates = [1e-4 * (1 - i / number) for i in range(number)]
    seconds = [2.0 * i for i in range(number)]
    first = steps(loss=losses, grad_norm=grads, eval_loss=evals, learning_rate=rates, seconds=seconds)
    return first + (steps(loss=losses[::-1], attempt=1, seconds=seconds) if draw(st.booleans()) else [])


def answer(engine: Engine) -> list[tuple[Any, ...]]:
    """Findings as comparable values (NaN equals NaN)."""
    assert not engine.problems
    return [(f.rule.id, f.steps, f.count, f.confidence, repr(f.first), f.evidence) for f in engine.findings()]


def fed(events: list[Event]) -> Engine:
    """An engine that saw these events."""
    engine = Engine(metric_rules())
    for event in events:
        engine.feed(event)
    return engine


@settings(max_examples=40, deadline=None)
@given(runs(), st.sets(st.integers(0, 120), max_size=6))
def test_asking_for_findings_in_between_changes_nothing(events, places):
    """A live run that is asked at any moments ends with the findings of the same run analysed once."""
    engine = Engine(metric_rules())
    for place, event in enumerate(events):
        engine.feed(event)
        if place in places:
            answer(engine)
    assert answer(engine) == answer(fed(events))


@settings(max_examples=40, deadline=None)
@given(runs(), st.lists(st.integers(0, 120), max_size=20))
def test_lines_between_the_steps_change_nothing(events, places):
    """However lines of the text lane stand between the steps, the findings on steps are the same."""
    mixed: list[Event] = list(events)
    for place in places:
        mixed.insert(min(place, len(mixed)), LINE)
    assert answer(fed(mixed)) == answer(fed(events))


def test_a_long_run_costs_no_more_memory_than_a_shorter_one():
    """Ten times as many records are held in the same memory (but for what one series of the run may hold)."""
    engine = Engine(metric_rules())
    losses = falling(500)
    tracemalloc.start()
    held = []
    for place in range(60):
        for event in steps(first=place * 500 + 1, loss=losses, grad_norm=losses, learning_rate=losses, seconds=losses):
            engine.feed(event)
        if place in (29, 59):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] < held[0] * 1.3


def test_forms_of_one_detection_share_its_settings():
    """A rule that refines another one by the same detector uses the same settings, so both judge the same matches."""
    rules = {rule.id: rule for rule in metric_rules()}
    for rule in rules.values():
        for parent in rule.refines:
            if parent in rules and rules[parent].detector == rule.detector:
                assert rule.params == rules[parent].params, rule.id
