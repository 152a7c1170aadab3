"""`plateau`: the loss does not change (a saturated model), or is no lower at the end than at the start."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import median
from doctor.detectors.base import QUIET, DetectorBase, has_policy_loss
from doctor.rulebook.findings import Evidence, Match

BLOCK = 10
"""Logs per median in the trend of `flat`."""

MAX_LEVELS = 512
"""Medians kept; every second is dropped beyond, so memory is bounded."""


GUESS = 0.01
"""How close a loss is to ln(vocabulary) if it is that of a uniform guess."""
GUESSES = 10
"""Logs after which a model that guessed in each has not begun to learn."""


class Plateau(DetectorBase):
    """Fact `kind`:

    - saturated: consecutive logs within the share `spread` of each other and above `above` (lower losses are equal by rounding).
      Needs `same` logs if grad_norm is 0 meanwhile (fact `grad_zero`), else `same_alone`.
    - flat: at the end, after `records` logs, the last third is not lower than the first third by the share `gain`, in medians of 10.
      `GUESSES` logs are enough if each is the loss of a uniform guess.

    Fact `uniform`: the loss equals that of a uniform guess over a vocabulary (ln of any of `vocabularies`). Fact `peak_seen`: whether
    `lr_peak` is the schedule's highest rate: it was still rising in the last log, or already falling in the first one, if not.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.loss",)
    facts: tuple[str, ...] = ("kind", "metric", "step", "value", "baseline", "records", "grad_zero", "uniform", "lr_peak", "peak_seen")

    def __init__(
        self, *, same: int, same_alone: int, spread: float, above: float, records: int, gain: float, vocabularies: list[int]
    ) -> None:
        self.same, self.same_alone, self.spread = same, same_alone, spread
        self.above, self.records, self.gain = above, records, gain
        self.uniform = [math.log(size) for size in vocabularies]
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        self.attempt = attempt
        self.count = 0
        self.first: Step | None = None
        self.last: Step | None = None
        self.levels: list[float] = []
        self.block: deque[float] = deque(maxlen=BLOCK)
        self.lr_peak = 0.0
        self.rates: list[float] = []
        """The first two and the last two learning rates."""
        self.signed = False
        self.lowest, self.highest = math.inf, -math.inf
        self._new_streak(None, 0.0)

    def _new_streak(self, event: Step | None, loss: float) -> None:
        self.since, self.low, self.high, self.streak, self.reported = event, loss, loss, 1, False
        self.grads = abs(event.metrics.get("grad_norm", math.inf)) if event else math.inf

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        loss = event.metrics.get("loss")
        if loss is None or not math.isfinite(loss) or has_policy_loss(event.metrics):
            return QUIET
        if event.attempt != self.attempt:
            self._restart(event.attempt)
        self.count += 1
        self.first, self.last = self.first or event, event
        self.signed |= loss < 0
        self.lowest, self.highest = min(self.lowest, loss), max(self.highest, loss)
        self.block.append(loss)
        if self.count % BLOCK == 0:
            self.levels.append(median(self.block))
            if len(self.levels) > MAX_LEVELS:
                self.levels = self.levels[::2]
        rate = event.metrics.get("learning_rate")
        if rate is not None:
            self.lr_peak = max(self.lr_peak, rate)
            self.rates = [*self.rates[:2], *self.rates[2:][-1:], rate]
        return self._extend_streak(event, loss)

    def _extend_streak(self, event: Step, loss: float) -> Iterator[Match]:
        low = loss if loss < self.low else self.low
        high = loss if loss > self.high else self.high
        if self.since is None or high - low > self.spread * high or loss <= self.above:
            found = self._saturated() if self.reported else []
            self._new_streak(event, loss)
            return iter(found) if found else QUIET
        self.low, self.high = low, high
        self.streak += 1
        self.grads = max(self.grads, abs(event.metrics.get("grad_norm", math.inf)))
        if self.reported or self.streak < (self.same if self.grads == 0 else self.same_alone) or _rounded(loss):
            return QUIET
        self.reported = True
        return iter(self._saturated())

    def finish(self, run: Run) -> Iterator[Match]:
        if self.reported:
            yield from self._saturated()
        elif self.count >= GUESSES and self.first is not None and self._only_guesses():
            yield self._match("flat", self.first, self.highest, self.lowest, self.count)
        elif self.count >= self.records and self.first is not None and not self.signed and self.lr_peak > 0:
            third = max(len(self.levels) // 3, 1)
            start, end = median(self.levels[:third]), median(self.levels[-third:])
            if end > start * (1 - self.gain):
                yield self._match("flat", self.first, end, start, self.count)

    def _only_guesses(self) -> bool:
        """Whether every loss is that of a uniform guess over one vocabulary."""
        return any(level - GUESS < self.lowest and self.highest < level + GUESS for level in self.uniform)

    def _saturated(self) -> list[Match]:
        return [self._match("saturated", self.since, self.high, self.low, self.streak)] if self.since is not None else []

    def _match(self, kind: str, first: Step, value: float, baseline: float, records: int) -> Match:
        last = self.last or first
        facts: dict[str, Any] = {
            "kind": kind, "metric": "loss", "step": first.step, "value": value, "baseline": baseline, "records": records,
            "uniform": any(abs(value - level) < GUESS for level in self.uniform),
            "grad_zero": kind == "saturated" and self.grads == 0.0, "lr_peak": self.lr_peak,
            "peak_seen": self._peak_seen(),
        }  # fmt: skip
        evidence = (Evidence(first.where, f"loss {value:.6g} in {records} logs, steps {first.step}-{last.step}"),)
        steps = (first.step, last.step)
        return Match(evidence=evidence, facts=facts, steps=steps, rank=last.rank, attempt=last.attempt, time=last.time, key=kind)

    def _peak_seen(self) -> bool:
        if len(self.rates) < 2:
            return False
        falling = self.rates[0] == self.lr_peak > self.rates[1]
        rising = self.rates[-2] < self.lr_peak == self.rates[-1]
        return not falling and not rising


def _rounded(loss: float) -> bool:
    """Whether the loss was logged with at most two decimals."""
    return abs(loss * 100 - round(loss * 100)) < 1e-6
