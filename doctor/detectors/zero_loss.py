"""`zero_loss`: the logged loss is exactly 0.0 in several logs without having decreased to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.config.options import effective
from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

CONSTANT_SPREAD = 1e-6
"""Relative spread below which gradient norms count as equal: logs have six digits or more."""

LEARNT = 0.5
"""A loss from which the next record cannot be 0.0 by learning: a step of a useful learning rate changes it by a few hundredths."""


class ZeroLoss(DetectorBase):
    """Match `records` logs of exactly 0.0 in a row, from the start or after a loss above `above` (a memorised run decreases slowly).

    A non-finite grad_norm in the same record belongs to `nonfinite`. Facts:

    - `grad`: the gradient norm meanwhile.
      - `zero`, `moving`.
      - `stuck`: the same non-zero number; a corrupted or clipped constant, seen with DeepSpeed.
      - `unknown`: not logged; transformers' logging_nan_inf_filter may hide a NaN.
    - `memorised`: preference margins above `margin` with accuracy 1 explain the 0.
    - `lr_stopped`: the learning rate changed between the two logs before and is constant since the last of them; a loss scaler skips steps.
    - `lr_frozen`: the learning rate is the same non-zero number in all logs of 0.0.
    - `cut`: the first sample was printed, none of its tokens is trained on, and it is as long as `cutoff_len`: its answer was cut off.

    At the end of an attempt `impossible` logs are enough if there was no other, or the learning rate is frozen or the gradient zero or
    stuck, and one log if the loss before was at least LEARNT and the learning rate is the same as there. Policy-gradient losses (a
    `reward` in the record) are exempt: they are 0 if all rewards of a batch are equal.

    With `final_seconds` only the final metrics count: the mean loss of a training of at least that many seconds is exactly 0.0, and no
    other loss was logged. Shorter trainings were resumed at their end: with `final_under` those are wanted, of fewer seconds than that.
    Facts then: metric, value, `seconds`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.loss",)
    facts: tuple[str, ...] = (
        "metric", "step", "value", "baseline", "records", "grad", "grad_norm", "at_start", "memorised", "margin",
        "learning_rate", "lr_moving", "lr_stopped", "lr_frozen",
        "seconds", "cut",
    )  # fmt: skip

    def __init__(
        self,
        *,
        records: int,
        above: float,
        margin: float,
        impossible: int = 2,
        final_seconds: float | None = None,
        final_under: float = math.inf,
    ) -> None:
        self.wanted, self.above, self.margin, self.impossible = records, above, margin, impossible
        self.final_seconds, self.final_under = final_seconds, final_under
        if final_seconds is not None:
            self.needs = ()  # the final metrics stand alone where no step was logged
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
                found += self._report(run)
            self.before = loss if math.isfinite(loss) and loss != 0.0 else self.before
            self.signed |= loss < 0
            self.rates = (self.rates[1], event.metrics.get("learning_rate"))
            self.count, self.first, self.grads = 0, None, (math.inf, -math.inf)
            return iter(found) if found else QUIET
        self._zero(event)
        return iter(found + self._report(run)) if self.count == self.wanted else iter(found)

    def finish(self, run: Run) -> Iterator[Match]:
        if self.final_seconds is not None:
            return self._final(run, self.final_seconds)
        return iter(self._report(run) if self.count > self.wanted or (self.count < self.wanted and self._is_impossible()) else [])

    def _final(self, run: Run, least: float) -> Iterator[Match]:
        mean, seconds = run.facts.get("train.loss"), run.facts.get("train.runtime_seconds")
        if mean != 0.0 or not isinstance(seconds, int | float) or not least <= seconds < self.final_under:
            return
        if any(loss != 0.0 for _, loss in run.series.get("loss", ())):
            return
        evidence = (Evidence(run.fact_where["train.loss"], f"train_loss {mean} after {seconds:.3g} s of training"),)
        yield Match(evidence=evidence, facts={"metric": "loss", "value": 0.0, "seconds": seconds})

    def _is_impossible(self) -> bool:
        if self.last is None or "reward" in self.last.metrics:
            return False
        if self.count < self.impossible:
            return self._dropped_from_high()
        return self.before is None or self._lr_frozen() or self._grad() in ("zero", "stuck")

    def _dropped_from_high(self) -> bool:
        """The last record fell to exactly 0.0 from a loss that no single step unlearns, and its learning rate did not move on."""
        rate = self.last.metrics.get("learning_rate") if self.last is not None else None
        return self.count > 0 and (self.before or 0.0) >= LEARNT and bool(rate) and rate == self.rates[1]

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

    def _report(self, run: Run) -> list[Match]:
        """The match; none for losses that decreased to zero, were negative (GRPO), or of a policy whose gradient moves."""
        if self.first is None or self.last is None or self.signed or (self.before is not None and self.before <= self.above):
            return []
        shown = self.last.metrics
        if "reward" in shown and self._grad() == "moving":  # advantages cancel in the value of the loss, not in its gradient
            return []
        margin = shown.get("rewards/margins")
        facts: dict[str, Any] = {
            "metric": "loss", "step": self.first.step, "value": 0.0, "records": self.count, "grad": self._grad(),
            "at_start": self.before is None, "lr_moving": self.lr_moving,
            "lr_stopped": self.lr_stopped and not self.lr_moving, "lr_frozen": self._lr_frozen(),
            "memorised": margin is not None and margin > self.margin and shown.get("rewards/accuracies", 1.0) >= 0.999,
            "cut": answer_cut(run),
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
        return "stuck" if high - low <= CONSTANT_SPREAD * high else "moving"


def answer_cut(run: Run) -> bool:
    """Whether the first sample shows that `cutoff_len` leaves no label; packed samples are always that long."""
    tokens, config = run.facts.get("first_sample.masked_tokens"), effective(run.config, run.facts)
    return tokens is not None and tokens == config.get("cutoff_len") and not (config.get("packing") or config.get("neat_packing"))
