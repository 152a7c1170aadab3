"""The engine: matches merged over ranks and time, specific rules first, blindness told, no order between the lanes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.core.events import ConfigSeen, Crash, Fact, LogLine, Sample, Step, Where
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase, has_input
from doctor.detectors.registry import DETECTORS
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.refinement import KEPT_MATCHES
from doctor.rulebook.findings import Evidence, Match
from doctor.rulebook.model import Rule
from doctor.support.texts import Text


def rule(name: str, when: dict, **more) -> Rule:
    title = Text(name, name)
    return Rule(id=name, cause="c", symptom="crash", severity="error", when=when, title=title, body=[title], **more)


def pattern(text: str) -> dict:
    return {"log_pattern": {"contains": [text], "any_of": [f"{text} ?(?P<n>\\d*)"]}}


def line(number: int, text: str, rank: int | None = None) -> LogLine:
    return LogLine(where=Where("console.log", number), text=text, rank=rank)


def test_repeats_over_ranks_are_one_finding():
    """Eight ranks that fail alike are one finding with eight ranks, the first place, and a bounded number of quotes."""
    engine = Engine([rule("memory/boom", pattern("boom"))])
    for number in range(1, 1001):
        engine.feed(line(number, "boom 3", rank=number % 8))
    (finding,) = engine.findings()
    assert (finding.count, finding.ranks, finding.first.where) == (1000, tuple(range(8)), Where("console.log", 1))
    assert len(finding.evidence) <= KEPT_MATCHES


def test_the_specific_rule_replaces_the_general_one_at_the_same_place():
    """A rule that refines another is told alone where both see one line; elsewhere the general one remains."""
    general = rule("memory/boom", pattern("boom"))
    special = rule("memory/boom-seven", pattern("boom 7"), refines=["memory/boom"])
    engine = Engine([general, special])
    engine.feed(line(1, "boom 7"))
    assert [finding.rule.id for finding in engine.findings()] == ["memory/boom-seven"]


def test_of_two_forms_of_one_thing_the_surer_is_told():
    """Two rules that refine the same parent and see the same line: the one with the higher confidence wins."""
    parent = rule("memory/boom", pattern("boom"))
    weak = rule("memory/a", pattern("boom 7"), refines=["memory/boom"], confidence=0.5)
    sure = rule("memory/b", {"log_pattern": {"contains": ["boom"], "any_of": ["boom 7"]}}, refines=["memory/boom"], confidence=0.8)
    engine = Engine([parent, weak, sure])
    engine.feed(line(1, "boom 7"))
    assert [finding.rule.id for finding in engine.findings()] == ["memory/b"]


def test_where_asks_config_and_facts_of_the_whole_run():
    """A condition is judged by what is known in the end, though the line came before the fact."""
    engine = Engine([rule("memory/boom", pattern("boom"), where={"config.stage": "dpo", "fact.world_size": {"ge": 2}})])
    engine.feed(line(1, "boom"))
    assert engine.findings() == []
    engine.feed(Fact(where=Where("console.log", 2), name="world_size", value=2))
    engine.feed(ConfigSeen(where=Where("train.yaml", 1), values={"stage": "dpo"}))
    assert [finding.rule.id for finding in engine.findings()] == ["memory/boom"]


def test_a_rule_that_could_not_look_says_what_it_missed():
    """Without a console, a rule on text is blind, not silent; with one it is neither."""
    engine = Engine([rule("memory/boom", pattern("boom"))])
    assert [(blind.rule.id, blind.missing) for blind in engine.blind()] == [("memory/boom", "text")]
    engine.feed(line(1, "fine"))
    assert engine.blind() == []


def test_what_the_config_shows_and_a_message_says_is_one_finding():
    """A config rule that refines a message's rule takes its place, with both pieces of evidence: the YAML line and the log line."""
    message = rule("config/refused", pattern("refused"))
    option = rule("config/bad-value", {"config": {"all": {"config.stage": "orpo"}}}, refines=["config/refused"])
    engine = Engine([message, option])
    engine.feed(ConfigSeen(where=Where("train.yaml", 3), values={"stage": "orpo"}))
    engine.feed(line(40, "refused"))
    (finding,) = engine.findings()
    assert finding.rule.id == "config/bad-value"
    assert [piece.where.file for piece in finding.evidence] == ["train.yaml", "console.log"]


class Broken(DetectorBase):
    """A detector with a bug."""

    reads = (LogLine,)
    facts = ()

    def feed(self, event, run) -> Iterator[Match]:
        raise ZeroDivisionError("oops")
        yield

    def finish(self, run) -> Iterator[Match]:
        raise KeyError("oops")
        yield


def test_a_broken_detector_costs_only_its_own_answer():
    """Other rules still answer, and the report can name the culprit."""
    engine = Engine([rule("memory/broken", {"broken": {}}), rule("memory/boom", pattern("boom"))], {**DETECTORS, "broken": Broken})
    engine.feed(line(1, "boom"))
    assert [finding.rule.id for finding in engine.findings()] == ["memory/boom"]
    assert any("ZeroDivisionError" in problem for problem in engine.problems)
    assert any("KeyError" in problem for problem in engine.problems)


class Closing(DetectorBase):
    """Decides at the end only."""

    reads = (LogLine,)

    def finish(self, run) -> Iterator[Match]:
        yield Match(evidence=(Evidence(Where("console.log", 2), "end"),))


def test_what_decides_at_the_end_only_is_given_no_lines():
    """It answers all the same, and asks the readers for no line: without literals of its own it would be given every one."""
    known = {**DETECTORS, "closing": Closing}
    engine = Engine([rule("memory/end", {"closing": {}}), rule("memory/boom", pattern("boom"))], known)
    subscribers = engine._subscribers(line(1, "boom"))
    assert [type(subscriber.detector).__name__ for subscriber in subscribers] == ["LogPattern"]
    engine.feed(line(1, "boom"))
    assert {finding.rule.id for finding in engine.findings()} == {"memory/end", "memory/boom"}


def test_new_matches_are_told_of_every_rule_in_the_order_of_the_rules():
    """Rules that share a detector are all told; one whose conditions do not hold is not."""
    rules = [
        rule("memory/a", pattern("seven")),
        rule("memory/b", pattern("boom")),
        rule("memory/c", pattern("seven")),
        rule("memory/d", pattern("boom"), where={"fact.n": "9"}),
    ]
    engine = Engine(rules)
    assert [name for name, _ in engine.feed(line(1, "boom seven"))] == ["memory/a", "memory/b", "memory/c"]
    assert engine.feed(line(2, "nothing")) == []


class Rising(DetectorBase):
    """A detector of the metric lane: any loss above ten."""

    reads = (Step,)
    needs = ("metrics.loss",)
    facts = ("loss",)

    def feed(self, event, run) -> Iterator[Match]:
        if event.metrics.get("loss", 0) > 10:
            yield Match(evidence=(Evidence(event.where, "loss"),), steps=(event.step, event.step), facts={"loss": event.metrics["loss"]})


def told(engine: Engine) -> list[tuple]:
    return [(f.rule.id, f.count, f.ranks, f.steps, f.first.where, f.order, sorted(f.first.facts.items())) for f in engine.findings()]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), losses=st.lists(st.floats(0, 20), max_size=40), spots=st.lists(st.integers(1, 60), max_size=5))
def test_the_lanes_may_interleave_as_they_like(seed, losses, spots):
    """Random interleavings of the metric lane and the text lane give the same findings: live order equals file order."""
    steps = [Step(where=Where("trainer_log.jsonl", i), step=i, metrics={"loss": loss}) for i, loss in enumerate(losses, 1)]
    texts = [line(i, "boom 7" if i in spots else "fine", rank=i % 2) for i in range(1, 61)]
    texts.append(Crash(where=Where("console.log", 99), exception="RuntimeError", message="boom 9"))
    rules = [
        rule("stability/high", {"rising": {}}),
        rule("memory/boom", pattern("boom")),
        rule("memory/seven", pattern("boom 7"), refines=["memory/boom"]),
    ]

    def run(order: random.Random | None) -> list[tuple]:
        engine = Engine(rules, {**DETECTORS, "rising": Rising})
        lanes = [list(steps), list(texts)]
        while any(lanes):
            lane = lanes[0] if lanes[0] and (not lanes[1] or order is None or order.random() < 0.4) else lanes[1]
            engine.feed(lane.pop(0))
        return told(engine)

    assert run(random.Random(seed)) == run(None)


def spans(first: tuple[int, int], second: tuple[int, int]) -> list[str]:
    """Ids of the findings of a general and a refining rule on metrics that hold for these steps."""
    rules = [rule("stability/high", {"span": {"of": "a"}}), rule("stability/higher", {"span": {"of": "b"}}, refines=["stability/high"])]
    engine = Engine(rules, {"span": Span})
    for name, (start, stop) in (("a", first), ("b", second)):
        engine.feed(Step(where=Where("log", step=start), step=start, metrics={name: float(stop)}))
    return [finding.rule.id for finding in engine.findings()]


class Span(DetectorBase):
    """A detector of the metric lane: steps from that of the record to the value of a metric."""

    reads = (Step,)
    facts = ()

    def __init__(self, of: str) -> None:
        self.of = of

    def feed(self, event, run) -> Iterator[Match]:
        if self.of in event.metrics:
            yield Match(evidence=(Evidence(event.where, self.of),), steps=(event.step, int(event.metrics[self.of])))


def test_two_findings_on_metrics_are_one_thing_where_their_steps_meet():
    """A common step is enough for the specific rule to replace the general one, before or after it; neighbouring steps are not."""
    assert spans((1, 10), (10, 20)) == ["stability/higher"]
    assert spans((10, 20), (1, 10)) == ["stability/higher"]
    assert spans((1, 10), (11, 20)) == ["stability/high", "stability/higher"]
    assert spans((11, 20), (1, 10)) == ["stability/high", "stability/higher"]


@pytest.mark.parametrize(
    ("need", "fed", "held"),
    [
        ("samples", Sample(where=Where("log"), metrics={"gpu.0.util_percent": 90.0}), True),
        ("samples", Step(where=Where("log"), step=1, metrics={"loss": 1.0}), False),
        ("samples.own_seconds", Sample(where=Where("log"), metrics={"own_seconds": 1.0}), True),
        ("samples.own_seconds", Sample(where=Where("log"), metrics={"gpu.0.util_percent": 90.0}), False),
        ("metrics.loss", Step(where=Where("log"), step=1, metrics={"loss": 1.0}), True),
        ("metrics.loss", Step(where=Where("log"), step=1, metrics={"eval_loss": 1.0}), False),
        ("steps", Step(where=Where("log"), step=0, metrics={}), True),
        ("text", Crash(where=Where("log"), exception="E"), True),
        ("text", Fact(where=Where("log"), name="text", value=True), True),
        ("text", Fact(where=Where("log"), name="world_size", value=2), False),
        ("config", ConfigSeen(where=Where("log"), values={"stage": "sft"}), True),
        ("config", Fact(where=Where("log"), name="world_size", value=2), False),
    ],
)
def test_an_input_is_there_once_an_event_brought_it(need, fed, held):
    """Each kind of input is seen in a run that has it, and missed in one that has others."""
    run = Run()
    run.apply(fed)
    assert has_input(need, run) is held


def test_what_only_a_notice_tells_of_did_not_happen_in_a_completed_run():
    """A failure's words at level INFO or WARNING, or after the end, are no finding once the run completed; an exception is."""
    quiet = [
        LogLine(where=Where("console.log", 1), text="boom 1", level="WARNING"),
        LogLine(where=Where("console.log", 2), text="boom 2", phase="end"),
    ]
    engine = Engine([rule("memory/boom", pattern("boom"))])
    for event in quiet:
        engine.feed(event)
    (finding,) = engine.findings()
    assert finding.notice
    engine.feed(Fact(where=Where("console.log", 3), name="run.completed", value=True))
    assert engine.findings() == []
    engine.feed(Crash(where=Where("console.log", 4), exception="RuntimeError", message="boom 3", phase="end"))
    (finding,) = engine.findings()
    assert not finding.notice


def test_a_rule_on_trial_is_possible_at_most():
    """Its confidence and its match's are cut to 0.5, lower ones stay."""
    for own, reported in ((0.95, 0.5), (0.3, 0.3)):
        engine = Engine([rule("memory/boom", pattern("boom"), status="trial", confidence=own)])
        engine.feed(line(1, "boom"))
        (finding,) = engine.findings()
        assert finding.confidence == reported
