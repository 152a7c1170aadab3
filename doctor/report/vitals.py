"""The figures that a person asks for first: loss from and to, pace, memory, duration, the last checkpoint; what was not read is None."""

from __future__ import annotations

import math
from collections.abc import Sequence

from doctor.core.run import Run
from doctor.core.series import Series, downsample
from doctor.report.model import VitalsView
from doctor.report.status import positive

LOSS_POINTS = 24
"""Points of the loss kept for the line: as many columns as fit beside the other figures."""


def vitals_of(run: Run) -> VitalsView | None:
    """The figures of a run that logged a loss; None without one."""
    loss = run.series.get("loss")
    finite = [value for value in loss.values if math.isfinite(value)] if loss else []
    if loss is None or not finite:
        return None
    _, shown = downsample(loss.steps, loss.values, LOSS_POINTS)
    return VitalsView(
        loss_first=_short(finite[0]),
        loss_last=_short(loss.values[-1]) if math.isfinite(loss.values[-1]) else None,
        loss_points=[_short(value) if math.isfinite(value) else None for value in shown],
        seconds_per_step=_pace(run),
        tokens_per_second=_last(run.series.get("throughput")),
        peak_gib=_peak(run),
        duration_seconds=positive(run.facts.get("train.runtime_seconds")) or _last(run.seconds),
        checkpoint=run.facts.get("checkpoint.last"),
    )


def _pace(run: Run) -> float | None:
    """The median of the measured step times; else what the training's own summary says."""
    measured = run.step_seconds if len(run.step_seconds) else run.series.get("step_seconds")
    times = [value for value in _values([measured]) if math.isfinite(value) and value > 0]
    if times:
        from statistics import median  # with what it imports 4 ms, and a configuration has no steps

        return _short(median(times))
    rate = positive(run.facts.get("train.steps_per_second"))
    return _short(1 / rate) if rate else None


def _peak(run: Run) -> float | None:
    """GiB of one card: reserved by PyTorch, else allocated, else what the driver saw in use."""
    used = [series for name, series in run.samples.items() if name.startswith("gpu.") and name.endswith(".used_gib")]
    for found in ([run.series.get("vram_reserved_gib")], [run.series.get("vram_allocated_gib")], used):
        values = [value for value in _values(found) if math.isfinite(value) and value > 0]
        if values:
            return _short(max(values))
    return None


def _values(found: Sequence[Series | None]) -> list[float]:
    return [value for series in found if series is not None for value in series.values]


def _last(series: Series | None) -> float | None:
    """The last value of a counter, if it is a positive number."""
    return positive(_short(series.values[-1])) if series else None


def _short(value: float) -> float:
    return float(f"{value:.6g}")
