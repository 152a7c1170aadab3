"""The logged series of a run, downsampled for plots: extremes and non-finite values stay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from doctor.core.events import MAX_STEP
from doctor.core.run import Run
from doctor.core.series import Series, downsample
from doctor.privacy.secrets import clean

POINTS = 2000
"""Maximum points of a curve: twice the pixels of a wide plot, so that each column of pixels has its lowest and highest value."""
METRICS = 24
"""Maximum number of metrics kept, the ones that people look at first."""
_FIRST = (
    "loss", "eval_loss", "grad_norm", "learning_rate", "step_seconds", "seconds", "throughput", "vram_allocated_gib", "vram_reserved_gib",
    "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "eval_accuracy", "kl", "entropy",
)  # fmt: skip
_LAST = ("epoch", "total_tokens", "num_input_tokens_seen", "percentage")
"""Counters that only rise: no use as a curve."""


class Curve(msgspec.Struct, frozen=True):
    """One metric of one attempt: `values[i]` at step `at[i]` (over steps) or `at[i]` seconds after the start (over seconds).

    Values are rounded to six digits; one that is not finite is null. `attempt` counts from 0: each begins where the step goes back.
    """

    metric: str
    attempt: int
    over: Literal["steps", "seconds"]
    at: list[int]
    values: list[float | None]


def of_run(run: Run) -> list[Curve]:
    """The curves of a run: metrics by step, wall time and time per step, then GPU and host readings by second."""
    measured: dict[str, Series] = {name: series for name, series in run.series.items() if name not in _LAST}
    measured |= {name: series for name, series in (("seconds", run.seconds), ("step_seconds", run.step_seconds)) if len(series) > 1}
    out = [curve for name in _chosen(measured) for curve in _curves(name, measured[name], "steps")]
    return out + [curve for name in _chosen(run.samples) for curve in _curves(name, run.samples[name], "seconds")]


def _chosen(measured: dict[str, Series]) -> list[str]:
    order = {name: place for place, name in enumerate(_FIRST)}
    return sorted(measured, key=lambda name: (order.get(name, len(order)), name))[:METRICS]


def _curves(name: str, series: Series, over: Literal["steps", "seconds"]) -> Iterator[Curve]:
    for attempt, (start, stop) in enumerate(_attempts(series.steps)):
        if max(map(abs, series.steps[start:stop])) > MAX_STEP:
            continue
        at, values = downsample(series.steps[start:stop], series.values[start:stop], POINTS)
        yield Curve(clean(name), attempt, over, at, [_short(value) for value in values])


def _attempts(steps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and stop of each part in which the step does not go back."""
    start = 0
    for place in range(1, len(steps)):
        if steps[place] < steps[place - 1]:
            yield start, place
            start = place
    if steps:
        yield start, len(steps)


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
