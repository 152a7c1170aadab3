"""`sample_level`: a GPU or host metric stays below or above a level for most of the run."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator
from typing import ClassVar

from doctor.core.events import Event, Sample
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

MAX_METRICS = 4096
"""Metric names remembered; bounds the state of a damaged journal. Eight GPUs have about 100."""


class SampleLevel(DetectorBase):
    """Match per metric if at least the share `least` of its samples is `below` (or `above`) the level.

    - `metric`: a name or pattern (`gpu.*.util_percent`).
    - `samples`: minimum number of samples.
    - `skip`: seconds ignored at the start.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Sample,)
    needs: tuple[str, ...] = ("samples",)
    facts: tuple[str, ...] = ("metric", "value", "share", "samples", "device")

    def __init__(
        self, *, metric: str, least: float, samples: int, skip: float = 0.0, below: float | None = None, above: float | None = None
    ) -> None:
        if (below is None) == (above is None):
            raise ValueError("needs one of `below` and `above`")
        self.pattern, self.least, self.samples, self.skip = metric, least, samples, skip
        self.low, self.high = below if below is not None else -math.inf, above if above is not None else math.inf
        self.wanted: dict[str, bool] = {}
        self.seen: dict[str, tuple[int, int, float]] = {}
        self.last: Sample | None = None

    def feed(self, event: Sample, run: Run) -> Iterator[Match]:
        if event.seconds is not None and event.seconds < self.skip:
            return QUIET
        for name, value in event.metrics.items():
            if name not in self.wanted and len(self.wanted) < MAX_METRICS:
                self.wanted[name] = fnmatch.fnmatchcase(name, self.pattern)
            if self.wanted.get(name) and math.isfinite(value):
                count, beyond, total = self.seen.get(name, (0, 0, 0.0))
                self.seen[name] = (count + 1, beyond + (value < self.low or value > self.high), total + value)
                self.last = event
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        for name, (count, beyond, total) in self.seen.items():
            if self.last is None or count < self.samples or beyond < self.least * count:
                continue
            device = name.split(".")[1] if name.count(".") >= 2 else ""
            facts = {"metric": name, "value": total / count, "share": 100 * beyond / count, "samples": count, "device": device}
            text = f"{name}: mean {total / count:.3g}, beyond the level in {beyond} of {count} samples"
            yield Match(evidence=(Evidence(self.last.where, text),), facts=facts, rank=self.last.rank)
