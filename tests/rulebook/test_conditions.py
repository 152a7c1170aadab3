"""The condition language: what rules ask of config, facts and the run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.rulebook.conditions import holds, paths, problems

SCOPE = {
    "config": {"lora_rank": 16, "bf16": True, "stage": "sft", "quantization_bit": None},
    "written": {"lora_rank": 16},
    "fact": {"gpu.total_gib": 24.0},
    "run": {},
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, True),
        ({"config.lora_rank": 16, "config.stage": "sft"}, True),
        ({"config.lora_rank": 16, "config.stage": "dpo"}, False),
        ({"config.stage": ["dpo", "sft"]}, True),
        ({"config.lora_rank": {"gt": 8, "le": 16}}, True),
        ({"written.lora_rank": {"set": True}, "written.stage": None}, True),
        ({"written.stage": {"set": True}}, False),
        ({"config.absent": {"lt": 8}}, False),
        ({"config.absent": {"ne": 8}}, True),
        ({"config.absent": None}, True),
        ({"config.quantization_bit": {"set": False}}, True),
        ({"config.bf16": 1}, False),
        ({"config.stage": {"lt": 3}}, False),
        ({"fact.gpu.total_gib": {"ge": 24}}, True),
        ({"config.stage": {"matches": "^s"}}, True),
        ({"not": {"config.stage": "sft"}}, False),
        ({"any": [{"config.stage": "dpo"}, {"config.lora_rank": 16}]}, True),
        ({"all": [{"config.stage": "sft"}, {"not": {"config.lora_rank": 8}}]}, True),
        ([{"config.stage": "dpo"}, {"config.stage": "sft"}], True),
        ([], False),
    ],
)
def test_conditions_mean_what_the_docs_say(condition, expected):
    """Each operator, nesting and absence rule of the module's docstring."""
    assert holds(condition, SCOPE) is expected


@pytest.mark.parametrize(
    ("condition", "word"),
    [({"config.x": {"above": 3}}, "above"), ({"colour": "red"}, "colour"), ("x", "mapping"), ({"config.x": {"matches": "("}}, "regular")],
)
def test_a_malformed_condition_is_named(condition, word):
    """A rule author's slip is told in a sentence that quotes it."""
    assert any(word in problem for problem in problems(condition))


def test_paths_reach_into_every_nesting():
    """All options a condition asks about are found, so that they can be checked against LLaMA-Factory's."""
    condition = {"config.a": 1, "not": {"any": [{"fact.b": 2}, {"all": [{"run.c": 3}]}]}}
    assert sorted(paths(condition)) == ["config.a", "fact.b", "run.c"]


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(value=values, wanted=values)
def test_negation_is_exact_and_nothing_raises(value, wanted):
    """For any value of a hand-written config, `not` is the opposite and no comparison raises."""
    scope = {"config": {"x": value}, "fact": {}, "run": {}}
    for operator in ("lt", "le", "gt", "ge", "ne"):
        condition = {"config.x": {operator: wanted}}
        assert holds({"not": condition}, scope) is not holds(condition, scope)
