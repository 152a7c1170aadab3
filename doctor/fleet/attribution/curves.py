"""Learning curves drawn over each other: an SVG for pages, a line of blocks for terminals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

COLOURS = {False: ("#2f9e6e", "#3b76c4", "#3aa6b9", "#7d8794", "#6c8f1f"), True: ("#c4513b", "#d1701d", "#c2568c", "#8a5cc9", "#b58900")}
"""Cool for good runs, warm for failed ones; from the sixth of a kind on they repeat."""
_BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 60, 30


class LossCurve(msgspec.Struct, frozen=True):
    """The loss of one run over its steps; `failed` ones are drawn dashed."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    failed: bool = False


class Polyline(msgspec.Struct, frozen=True):
    """One curve in the coordinates of the picture: the points of an SVG polyline."""

    name: str
    colour: str
    points: str
    failed: bool


class Picture(msgspec.Struct, frozen=True):
    """Everything a template needs; `ticks` are (place, text) of the two axes."""

    lines: list[Polyline]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = BOTTOM


def picture(curves: Sequence[LossCurve]) -> Picture | None:
    """All curves on one scale; the loss is drawn logarithmically where it spans more than a factor of ten. None without any point."""
    curves = [one for one in curves if one.steps]
    if not curves:
        return None
    steps = [step for one in curves for step in one.steps]
    values = [value for one in curves for value in one.values]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > 10
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    first, last = min(steps), max(steps)

    def x(step: int) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * (step - first) / max(1, last - first), 1)

    def y(value: float) -> float:
        return round(10 + (HEIGHT - BOTTOM - 20) * (top - scale(value)) / ((top - bottom) or 1), 1)

    lines: list[Polyline] = []
    for one in curves:
        colours = COLOURS[one.failed]
        colour = colours[sum(line.failed == one.failed for line in lines) % len(colours)]
        points = " ".join(f"{x(a)},{y(b)}" for a, b in zip(one.steps, one.values, strict=True))
        lines.append(Polyline(one.name, colour, points, one.failed))
    middle = 10 ** ((bottom + top) / 2) if logarithmic else (low + high) / 2
    ticks_y = [(y(value), f"{value:.3g}") for value in dict.fromkeys((low, middle, high))]
    ticks_x = [(x(step), str(step)) for step in dict.fromkeys((first, (first + last) // 2, last))]
    return Picture(lines, ticks_x, ticks_y)


def blocks(curves: Sequence[LossCurve], width: int = 40) -> list[tuple[str, str]]:
    """Every curve as a line of `width` blocks, all on one scale of steps and loss; blanks where a run has no points."""
    drawn = [one for one in curves if one.steps]
    if not drawn:
        return []
    first, last = min(min(one.steps) for one in drawn), max(max(one.steps) for one in drawn)
    low, high = min(min(one.values) for one in drawn), max(max(one.values) for one in drawn)
    out = []
    for one in curves:
        cells: list[list[float]] = [[] for _ in range(width)]
        for step, value in zip(one.steps, one.values, strict=True):
            cells[min(width - 1, (step - first) * width // max(1, last - first + 1))].append(value)
        heights = [max(cell) if cell else None for cell in cells]
        held: float | None = None
        text = ""
        end = max((i for i, cell in enumerate(cells) if cell), default=-1)
        for i, height in enumerate(heights):
            held = height if height is not None else held
            text += " " if held is None or i > end else _BLOCKS[min(7, int(8 * (held - low) / ((high - low) or 1)))]
        out.append((one.name, text))
    return out
