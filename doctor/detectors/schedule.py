"""`schedule`: the learning rate does not follow its schedule: zero for many logs, constant, or still warming up at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import median
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

TOO_FEW = 10
"""Fewer logs say nothing about a schedule."""


class Schedule(DetectorBase):
    """Fact `kind`:

    - zero: the first `zeros` logs have learning rate 0, so the optimizer never stepped. In a warm-up only the first log may be 0.
    - frozen: the rate changed, then stays the same non-zero number for `frozen` logs and more than the share `frozen_share` of the
      planned steps. Shorter periods prove nothing, as consoles print few digits.
    - warmup: the run completed with its highest rate in the last log, after at least `rising` rises in 95 % of the logs.

    - too_small: the run completed with its highest rate behind it, and its rates add up to at most `smallest` over all steps. An optimizer
      of the Adam family moves no weight farther than about that sum.

    Fact `scheduler`: lr_scheduler_type from the config, never a default. Fact `loss_share`: the median of the last three losses over
    that of the first three.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.learning_rate",)
    facts: tuple[str, ...] = ("kind", "metric", "step", "value", "records", "share", "grad_zero", "scheduler", "loss_share")

    def __init__(self, *, zeros: int, frozen: int, frozen_share: float, rising: int, smallest: float = 0.0) -> None:
        self.wanted, self.frozen, self.frozen_share, self.rising_wanted = zeros, frozen, frozen_share, rising
        self.smallest = smallest
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        self.attempt = attempt
        self.count = 0
        self.zeros = 0
        self.grads = 0.0
        self.rising = 0
        self.moved = 0
        self.peak = self.moves = 0.0
        self.rate: float | None = None
        self.first: Step | None = None
        self.last: Step | None = None
        self.same_since: Step | None = None
        self.same = 0
        self.longest: tuple[int, Step, Step] | None = None
        self.first_losses: list[float] = []
        self.last_losses: deque[float] = deque(maxlen=3)

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        rate = event.metrics.get("learning_rate")
        if rate is None or "loss" not in event.metrics:
            return QUIET
        if event.attempt != self.attempt:
            self._restart(event.attempt)
        self.count += 1
        self.last_losses.append(event.metrics["loss"])
        if len(self.first_losses) < 3:
            self.first_losses.append(event.metrics["loss"])
        self.moves += rate * (event.step - self.last.step if self.last is not None else max(event.step, 1))
        self.first = self.first or event
        self.last = event
        if rate == 0.0 and self.zeros == self.count - 1:
            self.zeros += 1
            self.grads = max(self.grads, abs(event.metrics.get("grad_norm", 0.0)))
            self.rate = rate
            if self.zeros == self.wanted:
                return iter([self._match("zero", self.first, event, rate, self.zeros, run.config)])
            return QUIET
        self._follow(event, rate)
        return QUIET

    def _follow(self, event: Step, rate: float) -> None:
        if self.rate is not None and rate == self.rate:
            if self.same_since is None:
                self.same_since = event
            self.same += 1
            if self.moved and rate and (self.longest is None or self.same > self.longest[0]):
                self.longest = (self.same, self.same_since, event)
        else:
            self.same_since, self.same = None, 0
            self.moved += self.rate is not None
            self.rising += self.rate is not None and rate > self.rate
        self.peak = max(self.peak, rate)
        self.rate = rate

    def finish(self, run: Run) -> Iterator[Match]:
        if self.first is None or self.last is None:
            return
        if self.zeros > self.wanted and self.zeros == self.count:
            yield self._match("zero", self.first, self.last, 0.0, self.zeros, run.config)
        planned = run.facts.get("steps.planned")
        if self.longest is not None and isinstance(planned, int) and planned > 0:
            records, since, until = self.longest
            share = (until.step - since.step) / planned
            if records >= self.frozen and share > self.frozen_share:
                yield self._match("frozen", since, until, since.metrics["learning_rate"], records, run.config, share)
        if run.completed and self.rising >= self.rising_wanted and self.rising >= 0.95 * (self.count - 1) and self.rate == self.peak:
            yield self._match("warmup", self.first, self.last, self.peak, self.count, run.config)

        if run.completed and self.count >= TOO_FEW and 0 < self.moves <= self.smallest and not self._is_rising():
            yield self._match("too_small", self.first, self.last, self.peak, self.count, run.config)

    def _is_rising(self) -> bool:
        """Whether the highest rate may still be to come."""
        return self.rate == self.peak and self.rising > 0

    def _match(
        self, kind: str, first: Step, last: Step, rate: float, records: int, config: Mapping[str, Any], share: float | None = None
    ) -> Match:
        facts: dict[str, Any] = {
            "kind": kind, "metric": "learning_rate", "step": first.step, "value": rate, "records": records,
            "grad_zero": kind == "zero" and self.grads == 0.0 and "grad_norm" in last.metrics,
        }  # fmt: skip
        if share is not None:
            facts["share"] = 100 * share
        if (start := median(self.first_losses)) > 0:
            facts["loss_share"] = median(self.last_losses) / start
        if "lr_scheduler_type" in config:
            facts["scheduler"] = config["lr_scheduler_type"]
        evidence = (Evidence(first.where, f"learning_rate {rate:.4g} in {records} logs, steps {first.step}-{last.step}"),)
        steps = (first.step, last.step)
        return Match(evidence=evidence, facts=facts, steps=steps, rank=last.rank, attempt=last.attempt, time=last.time, key=kind)
