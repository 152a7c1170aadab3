"""`slow_rank`: a rank's own work in a step takes longer than that of the others, which wait for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from doctor.core.events import Event, Sample
from doctor.core.run import Run
from doctor.core.series import median
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

MAX_RANKS = 100_000
"""Ranks followed; bounds the state of a damaged journal."""


class SlowRank(DetectorBase):
    """Match if a rank's mean of `metric` is at least `ratio` times the median of the other ranks.

    - `metric`: seconds of the rank's own work in a step, before it waits for the others, from each rank's journal.
    - `records`: samples needed per rank; at least two ranks.
    - `share`: minimum time the others lose, in percent of `step_seconds`.

    For comparison: NVRx's straggler detection calls a rank slow below 0.75 of the others' speed.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Sample,)
    facts: tuple[str, ...] = ("metric", "value", "baseline", "ratio", "share", "slow_rank", "ranks")

    def __init__(self, *, metric: str, ratio: float, share: float, records: int) -> None:
        self.metric, self.ratio, self.share, self.records = metric, ratio, share, records
        self.needs: tuple[str, ...] = (f"samples.{metric}",)
        self.sums: dict[int, tuple[int, float, float, Sample]] = {}

    def feed(self, event: Sample, run: Run) -> Iterator[Match]:
        value, step = event.metrics.get(self.metric), event.metrics.get("step_seconds", math.nan)
        if value is None or event.rank is None or not math.isfinite(value) or (event.rank not in self.sums and len(self.sums) >= MAX_RANKS):
            return QUIET
        count, total, steps, first = self.sums.get(event.rank, (0, 0.0, 0.0, event))
        self.sums[event.rank] = (count + 1, total + value, steps + step, first)
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        means = {rank: total / count for rank, (count, total, _, _) in self.sums.items() if count >= self.records}
        if len(means) < 2:
            return
        slow = max(means, key=lambda rank: (means[rank], rank))
        others = median([value for rank, value in means.items() if rank != slow])
        if means[slow] < self.ratio * others:
            return
        count, _, steps, first = self.sums[slow]
        share = 100 * count * (means[slow] - others) / steps if steps > 0 else math.nan
        if not share >= self.share:
            return
        facts = {
            "metric": self.metric, "value": means[slow], "baseline": others, "ratio": means[slow] / max(others, 1e-9),
            "share": share, "slow_rank": slow, "ranks": len(means) - 1,
        }  # fmt: skip
        text = f"rank {slow}: {means[slow]:.3g} s of own work a step, the others {others:.3g} s"
        yield Match(evidence=(Evidence(first.where, text),), facts=facts, rank=slow)
