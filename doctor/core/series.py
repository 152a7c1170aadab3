"""Series of numbers over steps: in bounded memory, as a sliding window, downsampled for a plot, as a line of blocks."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import isfinite

SERIES_POINTS = 8192
"""Capacity of a `Series` in points: about 130 KB, four times the pixels of a wide plot."""

_GROUP = 4
"""Points that `Series` reduces to at most three when it is full."""

_UNSORTED = 16
"""Values that `SortedWindow` inserts one by one; with more new ones it sorts the whole window (measured break-even at size 100)."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""Eighths of a character cell, lowest first (Unicode block elements U+2581 to U+2588)."""


class Series:
    """One metric over steps in constant memory: `values[i]` at `steps[i]`, in the order of arrival.

    When `capacity` is exceeded, each group of four points is reduced to its lowest, its highest and its first non-finite point.
    """

    __slots__ = ("capacity", "steps", "values")

    def __init__(self, capacity: int = SERIES_POINTS) -> None:
        self.capacity = capacity
        self.steps: list[int] = []
        self.values: list[float] = []

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self.steps, self.values, strict=True)

    def append(self, step: int, value: float) -> None:
        """Add a point."""
        steps = self.steps
        steps.append(step)
        self.values.append(value)
        if len(steps) > self.capacity:
            self._reduce()

    def extend(self, steps: Sequence[int], values: Sequence[float]) -> None:
        """Add points of the same number of steps and values; equal to `append` for each, in order."""
        start = 0
        while start < len(steps):
            stop = start + self.capacity + 1 - len(self.steps)
            self.steps += steps[start:stop]
            self.values += values[start:stop]
            start = stop
            if len(self.steps) > self.capacity:
                self._reduce()

    def _reduce(self) -> None:
        """Reduce each group; the sum of a group is finite if all its values are."""
        values, kept = self.values, list[int]()
        groups = zip(*(values[offset::_GROUP] for offset in range(_GROUP)), strict=False)
        for number, group in enumerate(groups):
            start = _GROUP * number
            if isfinite(sum(group)):
                low, high = group.index(min(group)), group.index(max(group))
                kept += (start + low,) if low == high else (start + min(low, high), start + max(low, high))
            else:
                kept += _decisive(values, start, start + _GROUP)
        kept += _decisive(values, len(values) // _GROUP * _GROUP, len(values))
        self.steps = [self.steps[place] for place in kept]
        self.values = [values[place] for place in kept]


def _decisive(values: Sequence[float], start: int, stop: int) -> list[int]:
    """Places of the lowest, the highest and the first non-finite of `values[start:stop]`, ascending; each once."""
    finite = [place for place in range(start, stop) if isfinite(values[place])]
    kept = {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)} if finite else set()
    kept.update(islice((place for place in range(start, stop) if not isfinite(values[place])), 1))
    return sorted(kept)


def downsample(steps: Sequence[int], values: Sequence[float], points: int) -> tuple[list[int], list[float]]:
    """Reduce a series to `points` points (at least 5) for a plot; a series of at most that many is returned whole.

    The result keeps order, the first and the last point, and of each of equally long parts the lowest, the highest and the first
    non-finite point. So no spike and no NaN disappears. The remaining points are evenly spaced ones.
    """
    size, points = len(steps), max(points, 5)
    if size <= points:
        return list(steps), list(values)
    parts = (points - 2) // (2 if all(map(isfinite, values)) else 3)
    kept = {0, size - 1}
    for part in range(parts):
        kept.update(_decisive(values, part * size // parts, (part + 1) * size // parts))
    others = [place for place in range(size) if place not in kept]
    missing = points - len(kept)
    kept.update(others[number * len(others) // missing] for number in range(missing))
    places = sorted(kept)
    return [steps[place] for place in places], [values[place] for place in places]


def finite_or_none(values: Iterable[float]) -> list[float | None]:
    """The values with None for NaN and infinities, which JSON does not have."""
    return [value if isfinite(value) else None for value in values]


def sparkline(values: Sequence[float | None], low: float, high: float, *, rows: int = 1, blocks: str = BLOCKS) -> list[str]:
    """Draw values as columns of `rows` lines of text, top line first: `low` is one eighth of a cell high, `high` fills all rows.

    Values outside of `low..high` are drawn at the edge. A non-finite value is an `x` in the bottom row, None an empty column. `blocks`
    are the fill levels of one cell, lowest first.
    """
    levels, scale = rows * len(blocks), high / 2 - low / 2  # halves: the difference of two large floats may be infinite
    columns: list[str] = []
    for value in values:
        if value is None or not isfinite(value):
            columns.append((" " if value is None else "x").ljust(rows))
            continue
        filled = max(0, min(levels - 1, int((value / 2 - low / 2) / scale * levels))) + 1 if scale > 0 else 1
        whole, part = divmod(filled, len(blocks))
        columns.append((blocks[-1] * whole + (blocks[part - 1] if part else "")).ljust(rows))
    return ["".join(column[row] for column in columns) for row in reversed(range(rows))]


class SortedWindow:
    """The last `size` finite values and their order statistics.

    Values are sorted only when a statistic is asked for. Adding one takes 0.1 us. The next statistic takes 0.4 us for each value added
    since the last one, at most the time of sorting the window.
    """

    __slots__ = ("_new", "_order", "_sorted", "size")

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a window holds at least one value, not {size}")
        self.size = size
        self._order: deque[float] = deque(maxlen=size + _UNSORTED)
        self._sorted: list[float] = []
        self._new = 0

    def __len__(self) -> int:
        return min(len(self._order), self.size)

    def add(self, value: float) -> None:
        """Add a finite value; a full window drops its oldest one."""
        self._order.append(value)
        self._new += 1

    @property
    def values(self) -> list[float]:
        """All values of the window, lowest first."""
        if self._new:
            self._update()
        return self._sorted

    def _update(self) -> None:
        """Insert the new values and remove those that left the window: `_order` still holds the last `_UNSORTED` of them."""
        order, values, new, size = self._order, self._sorted, self._new, self.size
        self._new = 0
        if new > _UNSORTED or new > size:
            self._sorted = sorted(islice(order, max(0, len(order) - size), None))
            return
        for place in range(len(values) + new, size, -1):
            del values[bisect_left(values, order[-place])]
        for place in range(new, 0, -1):
            insort(values, order[-place])

    @property
    def median(self) -> float:
        """The middle value, or the mean of the middle two. Raises IndexError if empty."""
        values = self.values
        half = len(values) // 2
        return values[half] if len(values) % 2 else 0.5 * (values[half - 1] + values[half])

    def latest(self, number: int) -> list[float]:
        """The last `number` values, newest first (fewer if the window holds fewer)."""
        return list(islice(reversed(self._order), min(number, self.size)))

    def quantile(self, share: float) -> float:
        """The value at `share` (0 to 1) of the sorted window. Raises IndexError if empty."""
        values = self.values
        return values[min(len(values) - 1, int(share * len(values)))]

    def quantile_at_least(self, share: float) -> float:
        """A lower bound of `quantile(share)`, usually without sorting: `n` new values move a rank of a full window by at most `n`."""
        values, new = self._sorted, self._new
        place = int(share * self.size) - new
        return values[place] if new <= _UNSORTED and 0 <= place < len(values) == self.size else self.quantile(share)


def median(values: Iterable[float]) -> float:
    """The median of `values`. Raises IndexError if empty."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])
