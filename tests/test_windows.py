"""The sliding window gives what sorting its last values would."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.windows import SortedWindow, median

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)


@given(NUMBERS, st.integers(1, 20))
def test_median_and_quantiles_are_those_of_the_last_values(values, size):
    """After any additions median and quantiles are the ones of the last `size` values, repeats included."""
    window = SortedWindow(size)
    for value in values:
        window.add(value)
    last = sorted(values[-size:])
    assert window.values == last
    assert window.median == statistics.median(last)
    assert window.quantile(0.9) == last[min(len(last) - 1, int(0.9 * len(last)))]
    assert median(values) == statistics.median(values)


def test_a_window_of_nothing_is_refused():
    """A size below one is a mistake of the rule, told at once."""
    with pytest.raises(ValueError, match="at least one"):
        SortedWindow(0)
