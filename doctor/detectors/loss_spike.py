"""`loss_spike`: a logged loss exceeds the recent baseline by more than the run's own noise."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import SortedWindow, median
from doctor.detectors.base import QUIET, DetectorBase, has_policy_loss
from doctor.rulebook.findings import Evidence, Match

NORMAL_Q90 = 1.2816
"""90th percentile of the standard normal distribution: converts a quantile of residuals to sigma."""

NORMAL_ABS_MEDIAN = 0.6745
"""Median of |x| for a standard normal x: converts a median of differences to sigma."""

NORMAL_ABS_Q90 = 1.6449
"""90th percentile of |x| for a standard normal x."""

CALM_RECORDS = 2
"""Records in a row near the baseline after which a spike has passed: one may be luck."""

NEAR_BASELINE = math.log(1.1)
"""Distance from the baseline at which the loss is back: PaLM (arXiv 2204.02311, 5.1) calls a spike over when the old level is reached."""

MAX_BASELINE_SIGMAS = 3.0
"""Records are clipped to this many sigmas above the baseline before they enter it."""


class OpenSpike:
    """A spike whose loss has not come back yet; `facts` are its match's, `limit` the level under which the loss is back."""

    def __init__(self, facts: dict[str, Any], limit: float) -> None:
        self.facts, self.limit = facts, limit
        self.calm = 0

    def is_over(self, event: Step, level: float) -> bool:
        """Count a later record; when the loss has come back, the match's facts say so and where."""
        self.calm = self.calm + 1 if level <= self.limit else 0
        if self.calm < CALM_RECORDS:
            return False
        self.facts.update(recovered=True, back_at=event.step)
        return True


class LossSpike(DetectorBase):
    """Detect spikes on log(loss + `offset`): a ratio means the same at any level, and rounding near zero is no spike.

    Parameters; counts are logged records:

    - `window`: length of the baseline, the median of the last records. Each is clipped at 3 sigma, so a spike cannot raise it.
    - `noise`: window for sigma, the largest of four estimates: 90th percentile of the residuals; median and 90th percentile of the
      differences; median of the last 8 differences, for noise that has just begun. Trends and heavy tails raise it.
    - `arm`: first record judged on its own. Earlier records are judged together, when `arm` is reached or at the end.
    - `z`, `ratio`, `rise`: required distance from the baseline in sigmas, as a factor, and in loss.
    - `z_witness`: sigmas required if grad_norm jumps in the same record: not finite, or `grad_ratio` times its clipped moving average.
    - `repeat`: required factor over the largest earlier residual; excludes the sawtooth of an ordered sampler.
    - `early_ratio`: required factor over all earlier records within the first `arm` records.

    Fact `recovered`: whether CALM_RECORDS records in a row came back to within NEAR_BASELINE of the baseline before the end of the
    attempt, at step `back_at`. It turns true in the facts of a match that was already given. `later_open`: a later spike has not.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.loss",)
    facts: tuple[str, ...] = (
        "metric", "step", "value", "baseline", "ratio", "grad_norm", "grad_ratio", "learning_rate", "lr_share", "recovered", "back_at",
        "later_open",
    )  # fmt: skip

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
        self.min_sigmas = min(MAX_BASELINE_SIGMAS, z, z_witness)
        self.jump, self.early_jump = math.log(ratio), math.log(early_ratio)
        self.grad_ratio, self.offset, self.floor = grad_ratio, offset, floor
        self.lr_peak = 0.0
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        """Start anew: the losses of an earlier attempt are no baseline for this attempt."""
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
        self.open: list[OpenSpike] = []
        self.told: list[dict[str, Any]] = []

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        loss = event.metrics.get("loss")
        if loss is None or has_policy_loss(event.metrics):
            return QUIET
        if event.attempt != self.attempt:
            before = self._judged_early() if self.count < self.arm else []
            self._restart(event.attempt)
            return iter([*before, *self._take(event, loss)])
        found = self._take(event, loss)
        return iter(found) if found else QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        return iter(self._judged_early() if self.count < self.arm else [])

    def _take(self, event: Step, loss: float) -> list[Match]:
        """Skip runs with negative losses (GRPO, PPO: no ratios) and exact zeros (see `zero_loss`, `nonfinite`)."""
        if loss < -0.01:
            self.signed = True
        if self.signed or loss == 0.0 or not math.isfinite(loss):
            return []
        self.count += 1
        level = math.log(max(loss, 0.0) + self.offset)
        if self.open:
            self._keep_open([spike for spike in self.open if not spike.is_over(event, level)])
        found = self._judge(event, loss, level)
        self._remember_lr_and_grad(event)
        if self.count > self.arm:
            if found:
                self._keep_open([*self.open, *(self._opened(match.facts) for match in found)])
            return found
        self.early.append((event, level))
        if self.count < self.arm:
            return []
        found = self._judge_early()
        self._keep_open(self._still_open(found))
        self.early = []
        if found:
            self.residuals = SortedWindow(self.noise)
        return found

    def _judge(self, event: Step, loss: float, level: float) -> list[Match]:
        """Compare a record with the baseline, then add it to the windows, clipped if it is an outlier."""
        found: list[Match] = []
        kept = level
        if self.count > 3:
            baseline = median(self.recent)
            residual = level - baseline
            if residual > self.min_sigmas * self.floor and self._needs_sigma(residual):
                sigma = self._sigma()
                kept = min(level, baseline + MAX_BASELINE_SIGMAS * sigma)
                if residual > self.jump and self._stands_out(event, residual, sigma):
                    found = self._match(event, loss, baseline) if loss - math.exp(baseline) + self.offset >= self.rise else []
            if not found:
                self.residuals.add(residual)
        if self.last is not None and not found:
            self.moves.add(abs(level - self.last))
        self.last = level
        self.recent.append(kept)
        return found

    def _needs_sigma(self, residual: float) -> bool:
        """Whether the record may be an outlier, by a cheap lower bound of sigma; spares most records the full estimate."""
        enough = len(self.residuals) >= self.arm - 3
        return enough and residual > self.min_sigmas * self.residuals.quantile_at_least(0.9) / NORMAL_Q90

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
        """Judge the first records of a run together, with the noise of all of them."""
        if len(self.early) < 5:
            return []
        levels = [level for _, level in self.early]
        moves = sorted(abs(b - a) for a, b in pairwise(levels))[:-2]  # without the two differences of a spike
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

    def _judged_early(self) -> list[Match]:
        """As `_judge_early`, for a run that ends before `arm` records."""
        found = self._judge_early()
        self._keep_open(self._still_open(found))
        return found

    def _keep_open(self, spikes: list[OpenSpike]) -> None:
        """Replace the open spikes; the facts of those before them say that a later one has not come back."""
        self.open = spikes
        newest = max((spike.facts["step"] for spike in spikes), default=-1)
        for facts in self.told:
            facts["later_open"] = facts["step"] < newest

    def _opened(self, facts: dict[str, Any]) -> OpenSpike:
        return OpenSpike(facts, math.log(facts["baseline"] + self.offset) + NEAR_BASELINE)

    def _still_open(self, found: list[Match]) -> list[OpenSpike]:
        """The early spikes from which the loss has not come back within the early records; the others' matches say that it has."""
        still = []
        for match in found:
            spike = self._opened(match.facts)
            later = (record for record in self.early if record[0].step > match.facts["step"])
            if not any(spike.is_over(event, level) for event, level in later):
                still.append(spike)
        return still

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
        facts |= {"recovered": False, "later_open": False}
        self.told.append(facts)
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
