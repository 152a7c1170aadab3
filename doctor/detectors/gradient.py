"""`gradient`: the gradient norm leaves its usual range and stays out, or is always far above the clipping threshold."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import SortedWindow, median
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match


class Gradient(DetectorBase):
    """The logged grad_norm is the norm before clipping (transformers Trainer). Fact `kind`:

    - explosion: the median of the last `hold` logs exceeds `above` and `ratio` times the median of the `window` before the rise.
    - large: at the end, 90 % of at least `records` logs exceed `clipped`. Every update is scaled down, so max_grad_norm determines the
      step size, not learning_rate.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.grad_norm",)
    facts: tuple[str, ...] = ("kind", "metric", "step", "value", "baseline", "ratio", "learning_rate", "records")

    def __init__(self, *, hold: int, window: int, ratio: float, above: float, clipped: float, records: int) -> None:
        self.hold, self.window, self.ratio, self.above, self.clipped, self.records = hold, window, ratio, above, clipped, records
        self.large = 0
        self.count = 0
        self.first: Step | None = None
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        self.attempt = attempt
        self.recent: deque[float] = deque(maxlen=self.hold)
        self.usual = SortedWindow(self.window)
        self.since: Step | None = None
        self.reported = False
        self.last: Step | None = None

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        norm = event.metrics.get("grad_norm")
        if norm is None or not math.isfinite(norm):
            return QUIET
        if event.attempt != self.attempt:
            self._restart(event.attempt)
        self.first = self.first or event
        self.last = event
        self.count += 1
        self.large += norm > self.clipped
        self.recent.append(norm)
        usual = self.usual
        if norm <= self.above or len(usual) < 12 or norm <= self.ratio * usual.median:
            usual.add(norm)
            self.since = None
            return QUIET
        self.since = self.since or event
        now = median(self.recent)
        if self.reported or now <= max(self.ratio * usual.median, self.above):
            return QUIET
        self.reported = True
        return iter([self._match("explosion", self.since, event, now, usual.median)])

    def finish(self, run: Run) -> Iterator[Match]:
        if self.count >= self.records and self.large >= 0.9 * self.count and self.first is not None and self.last is not None:
            yield self._match("large", self.first, self.last, self.usual.median, self.clipped)

    def _match(self, kind: str, first: Step, last: Step, value: float, baseline: float) -> Match:
        facts: dict[str, Any] = {
            "kind": kind, "metric": "grad_norm", "step": first.step, "value": value, "baseline": baseline,
            "ratio": value / max(baseline, 1e-12), "records": self.count,
        }  # fmt: skip
        if "learning_rate" in last.metrics:
            facts["learning_rate"] = last.metrics["learning_rate"]
        evidence = (Evidence(first.where, f"grad_norm about {value:.4g} (steps {first.step}-{last.step}) against {baseline:.4g}"),)
        steps = (first.step, last.step)
        return Match(evidence=evidence, facts=facts, steps=steps, rank=last.rank, attempt=last.attempt, time=last.time, key=kind)
