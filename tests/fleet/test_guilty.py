"""The guilty change: named where the runs prove it, "cannot tell" where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.fleet.attribution.changes import Trial, explain, fisher_p


def sweep(runs, harmful, seed=0, noise=0.0):
    """Trials with a learning rate, a switch and a word; `harmful(values)` says which of them fail."""
    chance = np.random.default_rng(seed)
    out = []
    for i in range(runs):
        values = {
            "learning_rate": float(chance.choice([1e-5, 5e-5, 1e-4, 1e-3])),
            "packing": bool(chance.integers(2)),
            "template": str(chance.choice(["llama3", "qwen", "gemma"])),
        }
        out.append(Trial(f"run{i}", bool(harmful(values)) != (chance.random() < noise), values))
    return out


@pytest.mark.parametrize("runs", [24, 200])
def test_a_harmful_value_is_named_with_its_numbers(runs):
    """The key, the question, the counts and the effect of a perfect split; under exact test and sparse model alike."""
    trials = sweep(runs, lambda one: one["learning_rate"] > 5e-4)
    found = explain(trials)
    first = found.suspects[0]
    failed = sum(one.failed for one in trials)
    assert (found.verdict, first.key, first.question) == ("found", "learning_rate", "> 0.0001")
    assert (first.failed_with, first.with_, first.failed_without, first.effect) == (failed, failed, 0, 1.0)
    assert first.guilty
    assert not [one.key for one in found.suspects[1:] if one.guilty]


def test_two_harmful_keys_both_lead():
    found = explain(sweep(400, lambda one: one["learning_rate"] > 5e-4 or one["template"] == "gemma", noise=0.05))
    assert {one.key for one in found.suspects if one.guilty} == {"learning_rate", "template"}


def test_failures_by_chance_cannot_be_told():
    """Of forty sweeps without a harmful key nearly none gets a guilty one."""
    verdicts = [explain(sweep(40, lambda _: False, seed, noise=0.3)).verdict for seed in range(40)]
    assert verdicts.count("found") <= 5


def test_two_runs_prove_nothing():
    found = explain([Trial("a", False, {"learning_rate": 1e-5}), Trial("b", True, {"learning_rate": 1e-3})])
    assert found.verdict == "cannot_tell"
    assert [one.key for one in found.suspects] == ["learning_rate"]


def test_keys_that_always_go_together_are_told_together():
    """No test can tell them apart, and none pretends to."""
    trials = [Trial(f"{i}", i % 3 == 0, {"a": i % 3 == 0, "b": "x" if i % 3 == 0 else "y", "c": i % 2}) for i in range(30)]
    first = explain(trials).suspects[0]
    assert {first.key, *first.same} == {"a", "b"}


@pytest.mark.parametrize(("failed", "verdict"), [([True] * 4, "all_failed"), ([False] * 4, "none_failed")])
def test_runs_of_one_kind_explain_nothing(failed, verdict):
    assert explain([Trial(f"{i}", one, {"a": i}) for i, one in enumerate(failed)]).verdict == verdict


def test_equal_runs_have_no_difference():
    assert explain([Trial(f"{i}", i < 2, {"a": 1}) for i in range(4)]).verdict == "no_difference"


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.data())
def test_the_exact_test_is_fishers(runs, data):
    """The p of every table equals scipy's."""
    stats = pytest.importorskip("scipy.stats")
    bad, size = data.draw(st.integers(1, runs - 1)), data.draw(st.integers(1, runs - 1))
    hit = data.draw(st.integers(max(0, bad + size - runs), min(bad, size)))
    table = [[hit, size - hit], [bad - hit, runs - size - bad + hit]]
    assert fisher_p(runs, bad, size)[hit] == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6)


def test_the_lady_tasting_tea():
    """Fisher's own example (The Design of Experiments, 1935): 8 cups, 4 with milk first, 4 chosen."""
    assert fisher_p(8, 4, 4) == pytest.approx([2 / 70, 34 / 70, 1.0, 34 / 70, 2 / 70])


def test_adjusted_p_is_bounded_and_in_order():
    """A perfect split is as small as 999 permutations allow, 1 / 1000, never 0; a weaker key never gets a smaller p than a stronger one."""
    trials = [Trial(f"{i}", i % 2 == 0, {"cause": i % 2, "half": i % 2 if i < 40 else i // 2 % 2, "noise": i // 8 % 2}) for i in range(80)]
    found = {one.key: one for one in explain(trials).suspects}
    assert found["cause"].adjusted == pytest.approx(0.001)
    assert found["cause"].adjusted <= found["half"].adjusted <= found["noise"].adjusted <= 1.0
    assert found["noise"].adjusted > 0.2
    chance = [Trial(f"{i}", i in (0, 3, 5), {f"key{k}": (i >> k) & 1 for k in range(3)}) for i in range(8)]
    ordered = sorted(explain(chance).suspects, key=lambda one: one.p)
    assert [one.adjusted for one in ordered] == sorted(one.adjusted for one in ordered)
    assert all(one.adjusted >= one.p for one in ordered)


def test_step_down_never_favours_the_second_of_two_equals():
    """Two keys that separate the runs equally well, in different ways, get the same adjusted p, whichever is looked at first."""
    answers = {"left": {0, 1, 2, 3, 6}, "right": {0, 1, 2, 4, 7}}  # four of five failed runs and one good one, each
    trials = [Trial(f"{i}", i < 5, {key: i in yes for key, yes in answers.items()}) for i in range(14)]
    left, right = sorted(explain(trials).suspects, key=lambda one: one.key)
    assert left.p == pytest.approx(right.p)
    assert left.adjusted == right.adjusted


def test_many_questions_cost_certainty():
    """The best of forty random keys looks good by itself and is nothing after all forty were asked."""
    chance = np.random.default_rng(5)
    trials = [Trial(f"{i}", i < 10, {f"key{k}": bool(chance.integers(2)) for k in range(40)}) for i in range(24)]
    found = explain(trials)
    assert found.suspects[0].p < 0.1
    assert found.suspects[0].adjusted > 5 * found.suspects[0].p
    assert found.verdict == "cannot_tell"
