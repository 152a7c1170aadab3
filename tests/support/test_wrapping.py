"""How Chinese breaks over lines, and that everything else breaks as rich breaks it."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from doctor.support.wrapping import Flowing, breaks

MIXED = st.text(alphabet="显存不足，。（）“” GPUa7`/", max_size=120)


def shown(text: Text, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(Padding(text, 0))
    return [line.rstrip() for line in out.getvalue().rstrip("\n").split("\n")]


def test_a_clause_fills_the_line_before_it_breaks() -> None:
    """A line breaks between two characters, not at the last blank before them."""
    assert shown(Flowing("GPU 0 在前向或反向传播时还需要更多显存"), 20) == ["GPU 0 在前向或反向传", "播时还需要更多显存"]
    assert shown(Text("GPU 0 在前向或反向传播时还需要更多显存"), 20)[0] == "GPU 0"


@pytest.mark.parametrize(
    ("text", "width", "lines"), [("一二三四，五六", 8, ["一二三", "四，五六"]), ("一二三（四五）", 8, ["一二三", "（四五）"])]
)
def test_marks_stay_with_their_words(text: str, width: int, lines: list[str]) -> None:
    """No line begins with a comma or ends with an opening bracket."""
    assert shown(Flowing(text), width) == lines


@given(MIXED, st.integers(4, 40))
def test_no_piece_is_too_wide_and_none_is_lost(text: str, width: int) -> None:
    """The pieces give the line again, and each fits."""
    places = [0, *breaks(text, width), len(text)]
    assert places == sorted(places)
    assert all(cell_len(text[a:b].rstrip()) <= width for a, b in pairwise(places))


@given(st.text(alphabet="가나다라 “”(),.abc", max_size=80), st.integers(6, 30))
def test_korean_and_english_break_as_before(text: str, width: int) -> None:
    """Where there is no Chinese, rich's own wrapping stands."""
    assert shown(Flowing(text), width) == shown(Text(text), width)


def test_styles_survive_the_breaks() -> None:
    """A styled piece keeps its style on the line to which it moves."""
    lines = Flowing.assemble("一二三四五六", ("显存", "bold")).wrap(Console(width=12), 12)
    assert [line.plain for line in lines] == ["一二三四五六", "显存"]
    assert [span.style for span in lines[1].spans] == ["bold"]
