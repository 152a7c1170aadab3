"""The sliding window gives what sorting its last values would."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.core.series import SortedWindow, median

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)


@given(NUMBERS, st.integers(1, 40), st.sets(st.integers(0, 79)))
def test_median_and_quantiles_are_those_of_the_last_values(values, size, asked):
    """After any additions, asked at any times, median and quantiles are the ones of the last `size` values, repeats included."""
    window = SortedWindow(size)
    for place, value in enumerate(values):
        window.add(value)
        last = sorted(values[: place + 1][-size:])
        if place in asked or place == len(values) - 1:
            assert window.quantile_at_least(0.9) <= last[min(len(last) - 1, int(0.9 * len(last)))]
            assert window.values == last
            assert window.median == statistics.median(last)
            assert window.quantile(0.9) == window.quantile_at_least(0.9) == last[min(len(last) - 1, int(0.9 * len(last)))]
            assert window.latest(8) == values[: place + 1][-min(size, 8) :][::-1]
            assert len(window) == len(last)
    assert median(values) == statistics.median(values)


def test_a_window_of_nothing_is_refused():
    """A size below one is a mistake of the rule, told at once."""
    with pytest.raises(ValueError, match="at least one"):
        SortedWindow(0)
