"""`zero_loss`: the logged loss is exactly 0.0 in several logs, and did not come down to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

SAME = 1e-6
"""Relative spread of gradient norms that count as one number: logs are rounded to six or more digits."""


class ZeroLoss(DetectorBase):
    """Finds `records` logs of exactly 0.0 in a row, from the start or after a loss above `above` (a memorised run comes down slowly).

    A non-finite grad_norm beside it belongs to `nonfinite`. The fact `grad` says what the gradient does meanwhile: `zero`, `stuck`
    (the same non-zero number: a corrupted or clipped constant, seen under DeepSpeed), `moving`, or `unknown` (not logged: a NaN behind
    transformers' logging_nan_inf_filter looks the same). `memorised`: preference margins above `margin` with accuracy 1 explain the 0.
    `lr_stopped`: the learning rate moved between the two logs before and stands still from the last of them on (a scaler skips the steps).
    `lr_frozen`: it is the same non-zero number in all logs of 0.0.

    At the end of an attempt `impossible` logs are enough if the learning rate is frozen, or the gradient zero or stuck: no training does
    that. Policy-gradient losses (a `reward` beside it) are exempt: they are 0 where all rewards of a batch are equal.

    With `final_seconds` it looks at the final metrics alone: the mean loss of a training of at least that many seconds (one that was
    resumed at its end logs 0.0 too) is exactly 0.0, and no other loss was logged. Facts then: metric, value, `seconds`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.loss",)
    facts: tuple[str, ...] = (
        "metric", "step", "value", "baseline", "records", "grad", "grad_norm", "at_start", "memorised", "margin",
        "learning_rate", "lr_moving", "lr_stopped", "lr_frozen",
        "seconds",
    )  # fmt: skip

    def __init__(self, *, records: int, above: float, margin: float, impossible: int = 2, final_seconds: float | None = None) -> None:
        self.wanted, self.above, self.margin, self.impossible = records, above, margin, impossible
        self.final_seconds = final_seconds
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        self.attempt = attempt
        self.before: float | None = None
        self.count = 0
        self.first: Step | None = None
        self.last: Step | None = None
        self.grads = (math.inf, -math.inf)
        self.signed = False
        self.lr_moving = self.lr_stopped = False
        self.rates: tuple[float | None, float | None] = (None, None)

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        loss = event.metrics.get("loss")
        if loss is None or self.final_seconds is not None:
            return QUIET
        found: list[Match] = []
        if event.attempt != self.attempt:
            found = list(self.finish(run))
            self._restart(event.attempt)
        if 0.0 < loss < math.inf and not self.count and not found:
            self.before, self.rates = loss, (self.rates[1], event.metrics.get("learning_rate"))
            return QUIET
        if loss != 0.0 or not math.isfinite(event.metrics.get("grad_norm", 0.0)):
            if self.count >= self.wanted:
                found += self._report()
            self.before = loss if math.isfinite(loss) and loss != 0.0 else self.before
            self.signed |= loss < 0
            self.rates = (self.rates[1], event.metrics.get("learning_rate"))
            self.count, self.first, self.grads = 0, None, (math.inf, -math.inf)
            return iter(found) if found else QUIET
        self._zero(event)
        return iter(found + self._report()) if self.count == self.wanted else iter(found)

    def finish(self, run: Run) -> Iterator[Match]:
        if self.final_seconds is not None:
            return self._final(run, self.final_seconds)
        return iter(self._report() if self.count > self.wanted or (self.count < self.wanted and self._is_impossible()) else [])

    def _final(self, run: Run, least: float) -> Iterator[Match]:
        mean, seconds = run.facts.get("train.loss"), run.facts.get("train.runtime_seconds")
        if mean != 0.0 or not isinstance(seconds, int | float) or seconds < least:
            return
        if any(loss != 0.0 for _, loss in run.series.get("loss", ())):
            return
        evidence = (Evidence(run.fact_where["train.loss"], f"train_loss {mean} after {seconds:.0f} s of training"),)
        yield Match(evidence=evidence, facts={"metric": "loss", "value": 0.0, "seconds": seconds})

    def _is_impossible(self) -> bool:
        if self.last is None or self.count < self.impossible or "reward" in self.last.metrics:
            return False
        return self._lr_frozen() or self._grad() in ("zero", "stuck")

    def _lr_frozen(self) -> bool:
        rate = self.last.metrics.get("learning_rate") if self.last is not None else None
        return self.count > 1 and rate is not None and rate > 0.0 and not self.lr_moving

    def _zero(self, event: Step) -> None:
        self.count += 1
        if self.first is None:
            self.first = event
            older, newer = self.rates
            self.lr_stopped = older is not None and older != newer and newer == event.metrics.get("learning_rate")
        elif event.metrics.get("learning_rate") != self.first.metrics.get("learning_rate"):
            self.lr_moving = True
        self.last = event
        grad = event.metrics.get("grad_norm")
        if grad is not None:
            self.grads = (min(self.grads[0], grad), max(self.grads[1], grad))

    def _report(self) -> list[Match]:
        """Nothing for losses that go through zero (GRPO) or came down to it."""
        if self.first is None or self.last is None or self.signed or (self.before is not None and self.before <= self.above):
            return []
        shown = self.last.metrics
        margin = shown.get("rewards/margins")
        facts: dict[str, Any] = {
            "metric": "loss", "step": self.first.step, "value": 0.0, "records": self.count, "grad": self._grad(),
            "at_start": self.before is None, "lr_moving": self.lr_moving,
            "lr_stopped": self.lr_stopped and not self.lr_moving, "lr_frozen": self._lr_frozen(),
            "memorised": margin is not None and margin > self.margin and shown.get("rewards/accuracies", 1.0) >= 0.999,
        }  # fmt: skip
        pairs = {
            "baseline": self.before,
            "grad_norm": shown.get("grad_norm"),
            "margin": margin,
            "learning_rate": shown.get("learning_rate"),
        }
        facts |= {name: value for name, value in pairs.items() if value is not None}
        text = f"loss 0.0 in {self.count} logs in a row" + (f", {self.before:.4g} before" if self.before is not None else "")
        if "grad_norm" in shown:
            text += f", grad_norm {shown['grad_norm']:.4g}"
        steps = (self.first.step, self.last.step)
        evidence = (Evidence(self.first.where, text),)
        return [Match(evidence=evidence, facts=facts, steps=steps, attempt=self.attempt, rank=self.last.rank, time=self.last.time)]

    def _grad(self) -> str:
        low, high = self.grads
        if low > high:
            return "unknown"
        if high == 0.0:
            return "zero"
        return "stuck" if high - low <= SAME * high else "moving"
