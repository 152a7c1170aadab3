"""Learning curves of several runs on one scale: an SVG for pages, a line of blocks for terminals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from doctor.core.series import sparkline

COLOURS = {False: ("#2f9e6e", "#3b76c4", "#3aa6b9", "#7d8794", "#6c8f1f"), True: ("#c4513b", "#d1701d", "#c2568c", "#8a5cc9", "#b58900")}
"""Cool colours for good runs, warm ones for failed runs; they repeat after five."""
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 60, 30
"""Size and margins of the SVG in pixels."""
LOG_RATIO = 10
"""Ratio of the largest to the smallest loss above which the axis is logarithmic."""


class LossCurve(msgspec.Struct, frozen=True):
    """The loss of one run over its steps; `failed` ones are drawn dashed."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    failed: bool = False


class Polyline(msgspec.Struct, frozen=True):
    """A curve in the coordinates of the picture: the points of an SVG polyline."""

    name: str
    colour: str
    points: str
    failed: bool


class Picture(msgspec.Struct, frozen=True):
    """Everything a template needs; ticks are (coordinate, text)."""

    lines: list[Polyline]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = BOTTOM


def picture(curves: Sequence[LossCurve]) -> Picture | None:
    """All curves on one scale, logarithmic if the loss spans more than LOG_RATIO. None without any point."""
    curves = [curve for curve in curves if curve.steps]
    if not curves:
        return None
    steps = [step for curve in curves for step in curve.steps]
    values = [value for curve in curves for value in curve.values]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > LOG_RATIO
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    first, last = min(steps), max(steps)

    def x(step: int) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * (step - first) / max(1, last - first), 1)

    def y(value: float) -> float:
        return round(10 + (HEIGHT - BOTTOM - 20) * (top - scale(value)) / ((top - bottom) or 1), 1)

    lines: list[Polyline] = []
    for curve in curves:
        colours = COLOURS[curve.failed]
        colour = colours[sum(line.failed == curve.failed for line in lines) % len(colours)]
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(curve.steps, curve.values, strict=True))
        lines.append(Polyline(curve.name, colour, points, curve.failed))
    middle = 10 ** ((bottom + top) / 2) if logarithmic else (low + high) / 2
    ticks_y = [(y(value), f"{value:.3g}") for value in dict.fromkeys((low, middle, high))]
    ticks_x = [(x(step), str(step)) for step in dict.fromkeys((first, (first + last) // 2, last))]
    return Picture(lines, ticks_x, ticks_y)


def blocks(curves: Sequence[LossCurve], width: int = 40) -> list[tuple[str, str]]:
    """Each curve as a line of `width` blocks on a common scale of steps and loss; blanks where a run has no points."""
    drawn = [curve for curve in curves if curve.steps]
    if not drawn:
        return []
    first, last = min(min(curve.steps) for curve in drawn), max(max(curve.steps) for curve in drawn)
    low, high = min(min(curve.values) for curve in drawn), max(max(curve.values) for curve in drawn)
    out = []
    for curve in curves:
        cells: list[list[float]] = [[] for _ in range(width)]
        for step, value in zip(curve.steps, curve.values, strict=True):
            cells[min(width - 1, (step - first) * width // max(1, last - first + 1))].append(value)
        heights = [max(cell) if cell else None for cell in cells]
        end = max((i for i, cell in enumerate(cells) if cell), default=-1)
        for i in range(1, end + 1):
            heights[i] = heights[i - 1] if heights[i] is None else heights[i]
        out.append((curve.name, sparkline(heights, low, high)[0]))
    return out
