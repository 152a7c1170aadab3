"""Logged curves as the points of an SVG: for the web page's pictures and for the notebook card. No script, no library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from doctor.core.series import downsample
from doctor.report.curves import Curve

if TYPE_CHECKING:
    from doctor.report.model import Report

WIDTH, HEIGHT = 600, 180
"""Size of a plot in SVG units; whoever shows it scales it."""
POINTS = 300
"""Points of a line: as many as a printed column can show."""
BAND = 6.0
"""Width of a shaded incident of a single step, in SVG units."""
COLOURS = ("#3b76c4", "#d1701d", "#2f9e6e", "#8a5cc9", "#c2568c", "#3aa6b9", "#7d8794", "#c4513b")
"""Those of the interactive plots (page.js)."""


class Plot(msgspec.Struct, frozen=True):
    """`lines` are (colour, points of a polyline), `bands` are (x, width) of the shaded incidents, in SVG units.

    `low` to `high` is the y axis in the curves' unit, `first` to `last` the x axis; `names` are (colour, metric) where there are several.
    """

    lines: list[tuple[str, str]]
    low: str
    high: str
    first: int
    last: int
    bands: list[tuple[str, str]] = []
    names: list[tuple[str, str]] = []


def incidents(report: Report) -> list[tuple[int, int]]:
    """First and last step of what happened: of the root causes, else of the warnings. Empty where no finding names a step."""
    told = [finding for finding in report.findings if finding.severity != "note" and finding.steps]
    roots = [finding for finding in told if finding.role == "root"]
    return sorted({(min(finding.steps), max(finding.steps)) for finding in roots or told if finding.steps})


def draw(curves: Sequence[Curve], spans: Sequence[tuple[int, int]]) -> Plot | None:
    """Curves of one unit on common axes; None if no value of them is finite. A value that is not finite interrupts its line.

    `spans` are the steps to shade, first and last.
    """
    points = [(at, value) for curve in curves for at, value in zip(curve.at, curve.values, strict=True) if value is not None]
    if not points:
        return None
    x, y = sorted(at for at, _ in points), sorted(value for _, value in points)
    lines = []
    for number, curve in enumerate(curves):
        for broken, part in groupby(_points(curve), key=lambda pair: math.isnan(pair[1])):
            if not broken:
                drawn = (f"{_scaled(at, x, WIDTH):.1f},{HEIGHT - _scaled(value, y, HEIGHT):.1f}" for at, value in part)
                lines.append((COLOURS[number % len(COLOURS)], " ".join(drawn)))
    names = list(dict.fromkeys((COLOURS[number % len(COLOURS)], curve.metric) for number, curve in enumerate(curves)))
    return Plot(lines, f"{y[0]:.4g}", f"{y[-1]:.4g}", x[0], x[-1], list(_bands(spans, x)), names if len(names) > 1 else [])


def _points(curve: Curve) -> Iterator[tuple[int, float]]:
    at, values = downsample(curve.at, [math.nan if value is None else value for value in curve.values], POINTS)
    return zip(at, values, strict=True)


def _bands(spans: Sequence[tuple[int, int]], x: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Where each incident begins and how wide it is; what lies outside the axis is left out."""
    for first, last in (span for span in spans if span[0] <= x[-1] and span[1] >= x[0]):
        start, stop = (min(max(_scaled(step, x, WIDTH), 0.0), WIDTH) for step in (first, last))
        if stop - start < BAND:
            start, stop = max(0.0, (start + stop - BAND) / 2), min(float(WIDTH), (start + stop + BAND) / 2)
        yield f"{start:.1f}", f"{stop - start:.1f}"


def _scaled(value: float, ordered: Sequence[float], size: int) -> float:
    """Where a value stands between the first and the last of `ordered`, from 0 to `size`; in the middle if these are equal."""
    span = ordered[-1] - ordered[0]
    return (value - ordered[0]) / span * size if span else size / 2
