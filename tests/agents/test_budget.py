"""Cutting to a budget: the verdict stays, what was cut is named, the bound holds for any text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from doctor.agents.budget import fitted, size, tokens


def _nested(inside: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inside, max_size=6) | st.dictionaries(st.text(max_size=8), inside, max_size=6)


VALUES = st.recursive(st.text(max_size=300) | st.integers(), _nested)


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name not in ("verdict", "cut")), VALUES, max_size=8))
def test_any_answer_fits_and_keeps_its_verdict(parts: dict[str, object]) -> None:
    """Whatever the later parts hold, the first stays whole, the whole is within the limit, nothing is added but `cut`."""
    answer = {"verdict": "failed", **parts}
    made = fitted(answer, 200)
    assert made["verdict"] == "failed"
    assert size(made) <= 200
    assert made.keys() - {"cut"} <= answer.keys()
    assert set(made.get("cut", [])) == {name for name in answer if name not in made or made[name] != answer[name]}


def test_an_answer_within_the_limit_is_left_alone() -> None:
    """Nothing is cut and nothing said of cutting."""
    answer = {"verdict": "healthy", "evidence": ["a", "b"]}
    assert fitted(answer, 100) == answer


def test_the_last_parts_go_first() -> None:
    """What comes earlier is more important."""
    made = fitted({"verdict": "failed", "first": "a" * 150, "second": ["b" * 150] * 3}, 100)
    assert made["first"] == "a" * 150
    assert made["cut"] == ["second"]


def test_the_bound_counts_characters_by_their_kind() -> None:
    """230 ASCII characters are 100 tokens, 50 Chinese or Korean ones 110."""
    assert tokens("a" * 230) == 100
    assert tokens("显" * 50) == tokens("한" * 50) == 110
