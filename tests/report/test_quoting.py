"""Facts in texts, evidence cut to its point, series made short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.report.quoting import deciding_words, excerpt, fill, placeholders
from doctor.words.josa import resolve_josa

FACTS = {"gpu": "5", "wanted_gib": 1.25, "share": 0.314, "text_number": "2.50", "gpu.name": "A100", "odd": "{gpu} {0.__class__}"}


def test_numbers_take_the_form_that_the_text_asks_for() -> None:
    """Format specifications work on numbers, and on texts that are numbers."""
    assert (
        fill("GPU {gpu}: {wanted_gib:.1f} GiB, {share:.0%}, {text_number:.1f} on {gpu.name}", FACTS.get)
        == "GPU 5: 1.2 GiB, 31%, 2.5 on A100"
    )


def test_facts_are_data_and_never_templates() -> None:
    """Braces inside a fact are shown, not evaluated."""
    assert fill("saw {odd}", FACTS.get) == "saw {gpu} {0.__class__}"


def test_a_text_with_braces_of_its_own_is_left_alone() -> None:
    """JSON inside a remedy is no placeholder."""
    assert fill('write {"zero_optimization": {"stage": 2}}', FACTS.get) == 'write {"zero_optimization": {"stage": 2}}'
    assert placeholders('{"a": 1} {b} {c.d:.2f}') == ["b", "c.d"]


def test_what_is_not_known_reads_as_a_question_mark() -> None:
    """Never a traceback, never an invented value; a specification that does not fit is dropped."""
    assert fill("{nothing} {gpu:%Y} {gpu:.1f}", FACTS.get) == "? 5 5.0"


@given(st.text(), st.dictionaries(st.sampled_from(["a", "b.c"]), st.none() | st.text() | st.floats() | st.integers() | st.lists(st.text())))
def test_no_template_or_fact_can_break_a_report(template: str, facts: dict[str, object]) -> None:
    """Any template with any facts gives a text."""
    assert isinstance(fill(template + "{a} {b.c:.1f}", facts.get), str)


def test_evidence_is_cut_around_the_words_that_decided() -> None:
    """A long line keeps the part for which it was quoted."""
    line = "x " * 2000 + "CUDA out of memory. Tried to allocate 2.00 GiB" + " y" * 2000
    cut = excerpt(line, ["CUDA out of memory"], 300)
    assert "CUDA out of memory. Tried to allocate 2.00 GiB" in cut
    assert len(cut) < 380
    assert cut.startswith("[...]")
    assert cut.endswith("[...]")


def test_what_a_pattern_found_decides_before_its_literals() -> None:
    """The literal may stand in many places; the pattern's match is the point."""
    words = deciding_words({"any_of": [r"Tried to allocate \d+"], "contains": ["memory"]}, {}, "memory memory Tried to allocate 20 GiB")
    assert words[0] == "Tried to allocate 20"


@given(st.text(), st.lists(st.text(max_size=8)), st.integers(40, 200))
def test_an_excerpt_is_bounded(text: str, words: list[str], limit: int) -> None:
    """Whatever the text, at most the limit, the edges of words and two ellipses."""
    assert len(excerpt(text, words, limit)) <= limit + 24 * 2 + 12


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("랭크 5이(가) 멈췄습니다", "랭크 5가 멈췄습니다"),
        ("랭크 3이(가) 멈췄습니다", "랭크 3이 멈췄습니다"),
        ("`GPU`은(는)", "`GPU`는"),
        ("1.2 GiB을(를)", "1.2 GiB를"),
        ("모델을(를) 설정(으)로", "모델을 설정으로"),
        ("스텝 7(으)로, 파일(으)로, 서버(으)로", "스텝 7로, 파일로, 서버로"),
        ("torch이(가) 없습니다", "torch이(가) 없습니다"),
    ],
)
def test_korean_particles_follow_the_sound_before_them(text: str, read: str) -> None:
    """A fact decides which form of the particle a Korean reader expects; where its reading is unknown both stay."""
    assert resolve_josa(text) == read
