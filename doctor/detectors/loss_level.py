"""`loss_level`: the first losses lie above what guessing among all tokens gives: they are sums, not means."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from statistics import median
from typing import Any, ClassVar

from doctor.config.options import effective
from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match


class LossLevel(DetectorBase):
    """Compare the median of the first `records` losses with ln(vocabulary), the cross-entropy of a model that guesses.

    The vocabulary is the model's (`model.config`), else `largest_vocabulary`. Matches where gradient accumulation explains the level:
    the median divided by the accumulation steps is from `least` to `most`, a usual loss at the start, and no loss is `rise` times the
    first one (a run that diverges at once is above any level). The last `records` losses, divided alike, must still be at least `least`:
    a model whose first losses are high and fall to usual ones (mT5 starts above 20) logs means. Only for pt and sft (cross-entropy).

    Where the accumulation is not known, the model must be a causal LM (`model.task`), and the losses must fall and stay above the level
    to the last one: a run that breaks down does not fall.

    Facts: `value` (the median), `uniform` (ln of the vocabulary), `accumulation`, `mean` (value / accumulation), `records`, `last` (the
    median of the last losses).
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.loss",)
    facts: tuple[str, ...] = ("metric", "step", "value", "uniform", "accumulation", "mean", "records", "last")

    def __init__(self, *, records: int, largest_vocabulary: int, least: float, most: float, rise: float) -> None:
        self.records, self.largest, self.least, self.most, self.rise = records, largest_vocabulary, least, most, rise
        self.first: list[Step] = []
        self.last: deque[float] = deque(maxlen=records)

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        loss = event.metrics.get("loss")
        if loss is not None and math.isfinite(loss):
            self.last.append(loss)
            if len(self.first) < self.records:
                self.first.append(event)
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        if len(self.first) < self.records or effective(run.config, run.facts).get("stage") not in ("pt", "sft"):
            return
        losses = [event.metrics["loss"] for event in self.first]
        level, last, uniform = median(losses), median(self.last), math.log(self._vocabulary(run))
        if level <= uniform or max(losses) > self.rise * losses[0]:
            return
        given = run.facts.get("batch.accumulation") or run.config.get("gradient_accumulation_steps")
        accumulation = given if isinstance(given, int) else None
        if not (self._stays_above(run, last, uniform) if accumulation is None else self._is_sum(level, last, accumulation)):
            return
        facts: dict[str, Any] = {
            "metric": "loss", "step": self.first[0].step, "value": level, "uniform": uniform, "records": len(self.first), "last": last,
        }  # fmt: skip
        if accumulation is not None:
            facts |= {"accumulation": accumulation, "mean": level / accumulation}
        text = f"loss {level:.4g} in the first {len(self.first)} logs; guessing among all tokens gives {uniform:.4g}"
        steps = (self.first[0].step, self.first[-1].step)
        yield Match(evidence=(Evidence(self.first[0].where, text),), facts=facts, steps=steps)

    def _is_sum(self, level: float, last: float, accumulation: int) -> bool:
        return accumulation >= 2 and self.least <= level / accumulation <= self.most and last / accumulation >= self.least

    def _stays_above(self, run: Run, last: float, uniform: float) -> bool:
        losses = [event.metrics["loss"] for event in self.first]
        return run.facts.get("model.task") == "CAUSAL_LM" and min(self.last) > uniform and last <= losses[0] and losses[-1] < losses[0]

    def _vocabulary(self, run: Run) -> int:
        shape = run.facts.get("model.config")
        size = shape.get("vocab_size") if isinstance(shape, dict) else None
        return size if isinstance(size, int) and size > 1 else self.largest
