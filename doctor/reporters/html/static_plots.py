"""The plots as SVG without a script, for an environment without plotly: lines only, with the limits of both axes as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from doctor.report.model import Report
from doctor.reporters.html.charts import Chart

WIDTH, HEIGHT = 600, 180
"""Size of a plot in SVG units; the page scales it to its column."""
COLOURS = ("#3b76c4", "#d1701d", "#2f9e6e", "#8a5cc9", "#c2568c", "#3aa6b9", "#7d8794", "#c4513b")
"""Those of the interactive plots (page.js)."""


class Plot(msgspec.Struct, frozen=True):
    """`lines` are (colour, points of a polyline); `low` to `high` is the y axis in the chart's unit, `first` to `last` the x axis."""

    lines: list[tuple[str, str]]
    low: str
    high: str
    first: int
    last: int


def plot(report: Report, chart: Chart) -> Plot | None:
    """The chart's curves on common axes; None if no value of them is finite. A value that is not finite interrupts its line."""
    curves = [curve for curve in report.curves if curve.metric in chart.metrics and curve.over == chart.over]
    points = [(at, value) for curve in curves for at, value in zip(curve.at, curve.values, strict=True) if value is not None]
    if not points:
        return None
    x, y = sorted(at for at, _ in points), sorted(value for _, value in points)
    lines = []
    for number, curve in enumerate(curves):
        pairs = zip(curve.at, curve.values, strict=True)
        for broken, part in groupby(pairs, key=lambda pair: pair[1] is None):
            if not broken:
                drawn = (f"{_scaled(at, x, WIDTH):.1f},{HEIGHT - _scaled(value or 0.0, y, HEIGHT):.1f}" for at, value in part)
                lines.append((COLOURS[number % len(COLOURS)], " ".join(drawn)))
    return Plot(lines, f"{y[0]:.4g}", f"{y[-1]:.4g}", x[0], x[-1])


def _scaled(value: float, ordered: Sequence[float], size: int) -> float:
    """Where a value stands between the first and the last of `ordered`, from 0 to `size`; in the middle if these are equal."""
    span = ordered[-1] - ordered[0]
    return (value - ordered[0]) / span * size if span else size / 2
