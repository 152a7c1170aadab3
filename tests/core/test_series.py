"""Series: bounded memory, sliding windows, downsampling and lines of blocks, each held against the plain definition."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.core.series import BLOCKS, Series, SortedWindow, downsample, finite_or_none, median, sparkline

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)
VALUES = st.lists(st.floats(), min_size=1, max_size=400)


def finite(values: list[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def test_a_series_of_any_length_is_bounded_and_keeps_its_extremes():
    """Of 200,000 points with one spike and one NaN at most `capacity` are kept, both among them."""
    series = Series(capacity=1000)
    for step in range(200_000):
        series.append(step, 50.0 if step == 77_777 else math.nan if step == 123_456 else 1.0 + step % 7 / 10)
    assert len(series) <= 1000
    assert (77_777, 50.0) in list(series)
    assert 123_456 in [step for step, value in series if math.isnan(value)]


@given(VALUES)
def test_a_bounded_series_keeps_order_range_and_holes(values):
    """Whatever is added: steps stay sorted, the finite minimum and maximum survive, and so does one non-finite value."""
    series = Series(capacity=16)
    for step, value in enumerate(values):
        series.append(step, value)
    kept = finite(series.values)
    assert series.steps == sorted(set(series.steps))
    assert len(series) <= 16
    assert (min(kept, default=0), max(kept, default=0)) == (min(finite(values), default=0), max(finite(values), default=0))
    assert (len(kept) < len(series)) == (len(finite(values)) < len(values))


@given(VALUES, st.integers(0, 400))
def test_many_points_at_once_are_the_same_as_one_by_one(values, split):
    """`extend` equals `append` for each point, wherever the points are split."""
    single, many = Series(capacity=16), Series(capacity=16)
    for step, value in enumerate(values):
        single.append(step, value)
    steps = list(range(len(values)))
    many.extend(steps[:split], values[:split])
    many.extend(steps[split:], values[split:])
    assert repr(list(many)) == repr(list(single))  # repr: nan equals nan


@given(VALUES, st.integers(5, 60))
def test_downsampling_keeps_extremes_holes_ends_and_order(values, points):
    """Exactly `points` points of the series itself, in order; minimum, maximum, both ends and a non-finite one are among them."""
    steps = list(range(7, 7 + len(values)))
    at, kept = downsample(steps, values, points)
    assert len(at) == min(points, len(values))
    assert at == sorted(set(at))
    assert (at[0], at[-1]) == (steps[0], steps[-1])
    assert all(values[step - 7] is value for step, value in zip(at, kept, strict=True))
    assert (min(finite(kept), default=0), max(finite(kept), default=0)) == (min(finite(values), default=0), max(finite(values), default=0))
    assert (len(finite(kept)) < len(kept)) == (len(finite(values)) < len(values))


def test_downsampling_keeps_a_spike_and_a_nan_in_each_part():
    """Two spikes, one up and one down, and a NaN far from them: the shape of the run, not its average."""
    values = [1.0] * 10_000
    values[5003], values[5004], values[8000] = 9.0, -9.0, math.nan
    at, _ = downsample(range(10_000), values, 72)
    assert len(at) == 72
    assert {5003, 5004, 8000} <= set(at)
    assert max(b - a for a, b in pairwise(at)) < 3 * 10_000 / 22  # 22 parts of a series with a NaN


def test_downsampling_never_returns_more_points_than_asked_for():
    """Also where every part has a lowest, a highest and a non-finite point."""
    values = [1.0, 2.0, math.nan] * 100
    for points in range(5, 60):
        assert len(downsample(range(300), values, points)[0]) == points


def test_json_has_no_infinity():
    """NaN and both infinities become None, everything else stays."""
    assert finite_or_none([1.5, math.nan, math.inf, -math.inf, -0.0]) == [1.5, None, None, None, -0.0]


def test_a_sparkline_draws_levels_gaps_and_broken_values():
    """The lowest value is the lowest block, the highest the highest; out of range is drawn at the edge."""
    values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, math.nan, None, 99.0, -99.0]
    assert sparkline(values, 0.0, 8.0) == ["▁▂▃▄▅▆▇██x █▁"]
    assert sparkline([2.0, 2.0], 2.0, 2.0) == ["▁▁"]
    assert sparkline([0.0, 9.0], 0.0, 9.0, blocks="_.-:=+*#") == ["_#"]


def test_a_sparkline_of_several_rows_fills_from_below():
    """Half of three rows is a full cell below and half a cell in the middle row."""
    assert sparkline([0.0, 11.0, 24.0, None, math.inf], 0.0, 24.0, rows=3) == ["  █  ", " ▄█  ", "▁██ x"]


@given(st.lists(st.none() | st.floats(), max_size=30), st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 6))
def test_a_sparkline_is_a_rectangle_that_rises_with_the_values(values, low, rows):
    """Every row is as wide as there are values; of two finite values the larger one never has the smaller column."""
    high = max([low, *(value for value in values if value is not None and math.isfinite(value))])
    drawn = sparkline(values, low, high, rows=rows)
    assert [len(row) for row in drawn] == [len(values)] * rows
    heights = [sum(BLOCKS.find(row[i]) + 1 for row in drawn) for i in range(len(values))]
    shown = sorted((value, height) for value, height in zip(values, heights, strict=True) if value is not None and math.isfinite(value))
    assert [height for _, height in shown] == sorted(height for _, height in shown)


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


def test_an_empty_window_size_is_refused():
    """A size below one is a mistake in a rule and is reported at once."""
    with pytest.raises(ValueError, match="at least one"):
        SortedWindow(0)
