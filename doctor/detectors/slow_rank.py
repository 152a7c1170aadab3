"""`slow_rank`: one rank takes longer over its own part of the step than the others, who wait for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from doctor.detectors.base import Evidence, Match
from doctor.events import Event, Step
from doctor.run import Run
from doctor.windows import median

QUIET: Iterator[Match] = iter(())


class SlowRank:
    """Means of `metric` per rank (the rank's own work before it waits for the others): one is `ratio` times their median.

    At least two ranks and `records` logs of each; NVRx's straggler detection calls a rank slow below 0.75 of the others' speed.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    literals: tuple[str, ...] = ()
    facts: tuple[str, ...] = ("metric", "step", "value", "baseline", "ratio", "share", "slow_rank", "ranks")

    def __init__(self, *, metric: str, ratio: float, records: int) -> None:
        self.metric, self.ratio, self.records = metric, ratio, records
        self.needs: tuple[str, ...] = (f"metrics.{metric}",)
        self.sums: dict[int, tuple[int, float, Step]] = {}
        self.last: Step | None = None

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        value = event.metrics.get(self.metric)
        if value is None or event.rank is None or not math.isfinite(value) or (event.rank not in self.sums and len(self.sums) >= 100_000):
            return QUIET
        count, total, first = self.sums.get(event.rank, (0, 0.0, event))
        self.sums[event.rank] = (count + 1, total + value, first)
        self.last = event
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        means = {rank: total / count for rank, (count, total, _) in self.sums.items() if count >= self.records}
        if len(means) < 2 or self.last is None:
            return
        slow = max(means, key=lambda rank: (means[rank], rank))
        others = median([value for rank, value in means.items() if rank != slow])
        if means[slow] < self.ratio * others:
            return
        first = self.sums[slow][2]
        facts = {
            "metric": self.metric, "step": first.step, "value": means[slow], "baseline": others, "ratio": means[slow] / max(others, 1e-9),
            "share": 100 * (1 - others / means[slow]), "slow_rank": slow, "ranks": len(means),
        }  # fmt: skip
        text = f"rank {slow}: {means[slow]:.3g} s of own work a step, the others {others:.3g} s"
        yield Match(evidence=(Evidence(first.where, text),), facts=facts, steps=(first.step, self.last.step), rank=slow)
