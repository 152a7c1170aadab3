"""A pasted text is read as it was printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.support.pasted_text import comparable, restored

PASTED = [
    ("No module named ‘peft’", "No module named 'peft'"),
    ("File “/a/b.py”, line 3", 'File "/a/b.py", line 3'),
    ("&lt;module&gt; &amp; more", "<module> & more"),
    ("load\\_model \\*\\*kw", "load_model **kw"),
    ("> RuntimeError: x", "RuntimeError: x"),
    ("[10:24 AM] Kim: RuntimeError: x", "RuntimeError: x"),
    ("2024-05-04T10:11:12.1234567Z RuntimeError: x", "RuntimeError: x"),
    ("from None **ValueError: Not able to read records in a.json.**", "from None ValueError: Not able to read records in a.json."),
    ("lr\u00a0=\u00a01e–4\u200b", "lr = 1e-4"),
]
UNTOUCHED = [
    "[rank0]: ValueError: x",
    "[INFO|2024-01-01 10:00:00] a",
    "C:\\new\\_x\\file",
    "错误：找不到文件（数据集）",
    "2024-05-04 10:11:12 - INFO",
    "a `b` c",
    "func(*fn_args, **additional_args, **fn_kwargs)",
    "x = a**Error + b**2",
]


@pytest.mark.parametrize(("pasted", "printed"), PASTED)
def test_a_line_is_restored(pasted: str, printed: str) -> None:
    """Quotes, dashes, entities, escapes and prefixes of chats and trackers."""
    assert restored(pasted) == printed


@pytest.mark.parametrize("line", UNTOUCHED)
def test_other_lines_stay(line: str) -> None:
    """Prefixes of logs, Windows paths and Chinese punctuation are text."""
    assert restored(line) == line


def test_pasted_and_printed_compare_equal() -> None:
    """Kinds of quotes, line breaks and blanks make no difference."""
    assert comparable("Please set  “dataset”\nnow") == comparable("Please set `dataset` now")


@given(st.text())
def test_restoring_twice_is_restoring_once_for_plain_text(text: str) -> None:
    """A text without quotation prefixes and entities does not change any more."""
    once = restored(text.replace("&", "").replace("\\", "").lstrip(">[2"))
    assert restored(once.lstrip(">[2")) == once.lstrip(">[2")
