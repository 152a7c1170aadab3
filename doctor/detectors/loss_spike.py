"""`loss_spike`: a logged loss stands out above its recent course and above the run's own noise."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import SortedWindow, median
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

NORMAL_Q90 = 1.2816
NORMAL_ABS_MEDIAN = 0.6745
NORMAL_ABS_Q90 = 1.6449
"""Quantiles of the standard normal distribution (of its absolute value): they turn quantiles into standard deviations."""

CUT = 3.0
"""So many sigmas of a record at most get into the baseline."""


class LossSpike(DetectorBase):
    """Works on log(loss + `offset`), so a ratio is a ratio at any level and rounding near zero is none.

    Parameters, in logged records unless said otherwise:
    `window`: the baseline is the median of that many last records, each cut at 3 sigma, so a spike cannot raise it.
    `noise`: over how many records sigma is estimated: the largest of three robust estimates (upper decile of the residuals, median and
    upper decile of the differences), so neither a trend nor heavy tails pass for quiet; the median of the last 8 differences counts
    too, for a noise that has just begun.
    `arm`: from which record on it judges; earlier ones are judged once that many are known, and at the run's end.
    `z`, `ratio`, `rise`: a spike lies that many sigmas, that factor and that much (in loss) above the baseline.
    `z_witness`: the sigmas that do where grad_norm jumps in the same record (by `grad_ratio` over its moving average, which a jump cannot
    raise much, or is not finite).
    `repeat`: and that factor above the largest residual seen: a sawtooth of an ordered sampler is no spike.
    `early_ratio`: what stands out among the first `arm` records does so by this factor over all before it.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.loss",)
    facts: tuple[str, ...] = ("metric", "step", "value", "baseline", "ratio", "grad_norm", "grad_ratio", "learning_rate", "lr_share")

    def __init__(
        self,
        *,
        window: int,
        noise: int,
        arm: int,
        z: float,
        ratio: float,
        rise: float,
        z_witness: float,
        grad_ratio: float,
        repeat: float,
        early_ratio: float,
        offset: float = 0.05,
        floor: float = 0.03,
    ) -> None:
        self.window, self.noise, self.arm = window, noise, arm
        self.z, self.z_witness, self.repeat, self.rise = z, z_witness, repeat, rise
        self.matters = min(CUT, z, z_witness)
        self.jump, self.early_jump = math.log(ratio), math.log(early_ratio)
        self.grad_ratio, self.offset, self.floor = grad_ratio, offset, floor
        self.lr_peak = 0.0
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        """Another process of the run: its losses say nothing about the next one's."""
        self.attempt = attempt
        self.count = 0
        self.signed = False
        self.last: float | None = None
        self.early: list[tuple[Step, float]] = []
        self.recent: deque[float] = deque(maxlen=self.window)
        self.residuals = SortedWindow(self.noise)
        self.moves = SortedWindow(self.noise)
        self.grads = 0
        self.usual_grad = 0.0

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        loss = event.metrics.get("loss")
        if loss is None:
            return QUIET
        if event.attempt != self.attempt:
            before = self._judge_early() if self.count < self.arm else []
            self._restart(event.attempt)
            return iter([*before, *self._take(event, loss)])
        found = self._take(event, loss)
        return iter(found) if found else QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        return iter(self._judge_early() if self.count < self.arm else [])

    def _take(self, event: Step, loss: float) -> list[Match]:
        """Losses around zero (GRPO, PPO) have no ratios; exact zeros are another detector's business (hidden NaN, no labels)."""
        if loss < -0.01:
            self.signed = True
        if self.signed or loss == 0.0 or not math.isfinite(loss):
            return []
        self.count += 1
        level = math.log(max(loss, 0.0) + self.offset)
        found = self._judge(event, loss, level)
        self._remember_lr_and_grad(event)
        if self.count > self.arm:
            return found
        self.early.append((event, level))
        if self.count < self.arm:
            return []
        found = self._judge_early()
        self.early = []
        if found:
            self.residuals = SortedWindow(self.noise)
        return found

    def _judge(self, event: Step, loss: float, level: float) -> list[Match]:
        """Compares a record with the baseline, then lets it into the windows (cut where it stands out)."""
        found: list[Match] = []
        kept = level
        if self.count > 3:
            baseline = median(self.recent)
            residual = level - baseline
            if residual > self.matters * self.floor and self._matters(residual):
                sigma = self._sigma()
                kept = min(level, baseline + CUT * sigma)
                if residual > self.jump and self._stands_out(event, residual, sigma):
                    found = self._match(event, loss, baseline) if loss - math.exp(baseline) + self.offset >= self.rise else []
            if not found:
                self.residuals.add(residual)
        if self.last is not None and not found:
            self.moves.add(abs(level - self.last))
        self.last = level
        self.recent.append(kept)
        return found

    def _matters(self, residual: float) -> bool:
        """Whether sigma is known and could be so small that the record is cut or stands out; most need no more than this bound of it."""
        enough = len(self.residuals) >= self.arm - 3
        return enough and residual > self.matters * self.residuals.quantile_at_least(0.9) / NORMAL_Q90

    def _sigma(self) -> float:
        moves = self.moves
        usual = max(moves.median, median(moves.latest(8)))
        from_moves = max(usual / NORMAL_ABS_MEDIAN, moves.quantile(0.9) / NORMAL_ABS_Q90) / math.sqrt(2)
        return max(self.floor, self.residuals.quantile(0.9) / NORMAL_Q90, from_moves)

    def _stands_out(self, event: Step, residual: float, sigma: float) -> bool:
        if residual <= self.repeat * self.residuals.values[-1]:
            return False
        if residual > self.z * sigma:
            return True
        return residual > self.z_witness * sigma and self._grad_jumps(event)

    def _grad_jumps(self, event: Step) -> bool:
        grad = event.metrics.get("grad_norm")
        if grad is None:
            return False
        return not math.isfinite(grad) or (self.grads >= self.arm and grad > self.grad_ratio * self.usual_grad)

    def _judge_early(self) -> list[Match]:
        """The first records of a run, looked at together: the noise is that of all of them."""
        if len(self.early) < 5:
            return []
        levels = [level for _, level in self.early]
        moves = sorted(abs(b - a) for a, b in pairwise(levels))[:-2]  # a spike's own way up and down
        sigma = max(self.floor, median(moves) / NORMAL_ABS_MEDIAN / math.sqrt(2))
        found: list[Match] = []
        top = levels[0]
        for event, level in self.early[1:]:
            rise = math.exp(level) - math.exp(top)
            if level - top > max(self.early_jump, self.z * sigma) and rise >= self.rise:
                found += self._match(event, event.metrics["loss"], top)
            else:
                top = max(top, level)
        return found

    def _remember_lr_and_grad(self, event: Step) -> None:
        metrics = event.metrics
        rate, grad = metrics.get("learning_rate"), metrics.get("grad_norm")
        if rate is not None and rate > self.lr_peak:
            self.lr_peak = rate
        if grad is None or not math.isfinite(grad):
            return
        self.grads += 1
        usual = self.usual_grad
        if self.grads > 1 and grad > 3 * usual:
            grad = 3 * usual
        self.usual_grad = usual + (grad - usual) / (self.grads if self.grads < 25 else 25)

    def _match(self, event: Step, loss: float, baseline_level: float) -> list[Match]:
        baseline = max(math.exp(baseline_level) - self.offset, 1e-9)
        facts: dict[str, Any] = {"metric": "loss", "step": event.step, "value": loss, "baseline": baseline, "ratio": loss / baseline}
        text = f"loss {loss:.4g} where {baseline:.4g} was usual"
        grad, rate = event.metrics.get("grad_norm"), event.metrics.get("learning_rate")
        if grad is not None:
            facts["grad_norm"] = grad
            text += f", grad_norm {grad:.4g}"
            if self.grads >= 3:
                facts["grad_ratio"] = grad / max(self.usual_grad, 1e-12)
        if rate is not None:
            facts["learning_rate"] = rate
            facts["lr_share"] = rate / max(self.lr_peak, rate, 1e-30)
        sure = 0.9 if self._grad_jumps(event) else None
        where = (event.step, event.step)
        evidence = (Evidence(event.where, text),)
        return [
            Match(evidence=evidence, facts=facts, steps=where, rank=event.rank, attempt=event.attempt, time=event.time, confidence=sure)
        ]
