"""A backtick in a rule's expression stands for any quote or for none, but never for the middle of a word."""

from __future__ import annotations

import re

import pytest

from doctor.detectors.log_pattern import without_backticks

CASES = [
    ("the option `parallel_size` is", True),
    ("the option 'parallel_size' is", True),
    ("the option parallel_size is", True),
    ("the option tensor_parallel_size is", False),
    ("the option parallel_sizes is", False),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_a_backtick_is_optional_only_where_a_word_begins_or_ends(text: str, expected: bool) -> None:
    """Markdown takes backticks away when a log is pasted; the rest of a longer name is another option."""
    assert bool(re.search(without_backticks("`parallel_size`"), text)) is expected
