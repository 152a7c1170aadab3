"""`nonfinite`: a loss, gradient norm, reward or eval loss is NaN or infinite, also if the loss is logged as 0.0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

CLASS_METRICS = (("rewards/chosen", "rewards/rejected"), ("logps/chosen", "logps/rejected"))
"""Metrics of the chosen and rejected class in preference training (trl)."""


class Nonfinite(DetectorBase):
    """Report the first non-finite record. Facts:

    - `kind`:
      - `loss`: NaN or infinity is logged.
      - `hidden`: 0.0 is logged with a non-finite grad_norm or reward; transformers' logging_nan_inf_filter replaces a NaN loss by 0.0
        (Trainer._maybe_log_save_evaluate).
      - `grad`: only grad_norm; the fp16 loss scaler skipped the step.
      - `eval`: eval_loss.
    - `lr_frozen`: the learning rate repeats exactly, so the optimizer did not step.
    - `at_start`: no finite loss before.
    - `backward_first`: the run's first record has a sound loss and a gradient norm that is not: the backward pass broke, not the weights.
    - `other_rate`: the learning rate of an earlier attempt that broke at the same step with another one: then it is that batch.
    - `bad_steps`: the steps one of which met the first such value, "120" or "111-120" (that of the record and those since the record before
      it), where the log says them exactly and they are ten at most; else None.
    - `one_sided`: KTO with a finite grad_norm, and NaN in the rewards of a class: the batch had no sample of that class.

    Parameter `skips`: records in a row that `grad` needs, as single ones are normal in fp16. Twice as many at the start of a run, when
    the scaler lowers its scale from 65536.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("steps",)
    facts: tuple[str, ...] = (
        "kind", "metric", "step", "records", "at_start", "last_good", "last_good_step", "grad_norm", "grad_finite", "learning_rate",
        "lr_frozen", "lr_moving", "one_sided", "value",
        "backward_first", "other_rate", "bad_steps",
    )  # fmt: skip

    def __init__(self, *, skips: int) -> None:
        self.skips = skips
        self.earlier: list[Step] = []
        """The first record that was not finite, of each attempt before."""
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        self.attempt = attempt
        self.first: Step | None = None
        self.kind = ""
        self.records = 0
        self.streak = 0
        self.good: Step | None = None
        self.rate: float | None = None
        self.trained = False
        self.frozen = 0
        self.moving = 0
        self.last: Step | None = None
        self.eval_bad: Step | None = None
        self.eval_records = 0

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        found: list[Match] = []
        if event.attempt != self.attempt:
            found = list(self.finish(run))
            if self.first is not None and self.kind != "grad":
                self.earlier.append(self.first)
            self._restart(event.attempt)
        metrics = event.metrics
        kind = self._kind(metrics)
        evaluated = metrics.get("eval_loss")
        if evaluated is not None and not math.isfinite(evaluated):
            found += self._eval(event)
        if kind:
            return iter([*found, *self._bad(event, kind)])
        if "loss" in metrics:
            self.good, self.rate, self.streak, self.trained = event, metrics.get("learning_rate"), 0, True
            if self.kind == "grad":
                self.first = None
        return iter(found) if found else QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        if self.first is not None and self.last is not None and (self.kind != "grad" or self._enough()) and self.records > 1:
            yield self._match(self.last)
        if self.eval_bad is not None and self.eval_records > 1 and self.last is not None:
            yield self._eval_match(self.last)

    def _kind(self, metrics: dict[str, float]) -> str:
        loss, grad = metrics.get("loss"), metrics.get("grad_norm")
        if loss is None:
            return ""
        if not math.isfinite(loss):
            return "loss"
        broken = grad is not None and not math.isfinite(grad)
        if loss == 0.0 and (broken or any(not math.isfinite(metrics.get(name, 0.0)) for pair in CLASS_METRICS for name in pair)):
            return "hidden"
        return "grad" if broken else ""

    def _bad(self, event: Step, kind: str) -> list[Match]:
        if self.first is None:
            self.first, self.records, self.frozen, self.moving = event, 0, 0, 0
        worse = self.kind in ("", "grad") or self.records == 0
        if worse:
            self.kind = kind
        self.records += 1
        self.streak += 1
        self._follow_rate(event.metrics.get("learning_rate"))
        self.last = event
        if kind == "grad":
            self.trained = True
            return [self._match(event)] if self.kind == "grad" and self.streak == self._wanted() else []
        return [self._match(event)] if worse or 2 in (self.frozen, self.moving) else []

    def _follow_rate(self, rate: float | None) -> None:
        """Count records in a row with the same or a new learning rate."""
        if rate is not None and self.rate is not None:
            same = rate == self.rate
            self.frozen, self.moving = (self.frozen + 1, 0) if same else (0, self.moving + 1)
        self.rate = rate

    def _wanted(self) -> int:
        return self.skips * (2 if self.good is None else 1)

    def _enough(self) -> bool:
        return self.streak >= self._wanted()

    def _eval(self, event: Step) -> list[Match]:
        self.eval_records += 1
        if self.eval_bad is not None:
            return []
        self.eval_bad = event
        return [self._eval_match(event)]

    def _eval_match(self, event: Step) -> Match:
        first = self.eval_bad or event
        facts = {"kind": "eval", "metric": "eval_loss", "step": first.step, "records": self.eval_records, "at_start": not self.trained}
        evidence = (Evidence(first.where, f"eval_loss {first.metrics.get('eval_loss')} at step {first.step}"),)
        return Match(evidence=evidence, facts=facts, steps=(first.step, event.step), attempt=self.attempt, rank=event.rank, key="eval")

    def _other_rates(self, first: Step) -> list[float]:
        """Learning rates of earlier attempts that broke at this step though theirs was another."""
        rate = first.metrics.get("learning_rate")
        rates = [before.metrics.get("learning_rate") for before in self.earlier if before.step == first.step]
        return [other for other in rates if other is not None and _rate_differs(rate, other)]

    def _match(self, event: Step) -> Match:
        first = self.first or event
        shown = first.metrics
        metric = "grad_norm" if self.kind in ("grad", "hidden") and "grad_norm" in shown else "loss"
        facts: dict[str, Any] = {
            "kind": self.kind, "metric": metric, "step": first.step, "records": self.records, "at_start": not self.trained,
            "lr_frozen": self.frozen >= 2, "lr_moving": self.moving >= 2, "one_sided": _one_sided(event.metrics),
            "backward_first": self.good is None and self._kind(shown) == "grad" and shown.get("loss") != 0.0,
            "bad_steps": _between(self.good, first) if self.kind in ("loss", "hidden") else None,
            "grad_finite": math.isfinite(event.metrics.get("grad_norm", math.nan)),
        }  # fmt: skip
        for name, value in (("grad_norm", shown.get("grad_norm")), ("learning_rate", shown.get("learning_rate"))):
            if value is not None:
                facts[name] = value
        if self.good is not None:
            facts |= {"last_good": self.good.metrics["loss"], "last_good_step": self.good.step}
        if rates := self._other_rates(first):
            facts["other_rate"] = rates[-1]
        words = ", ".join(f"{name} {shown[name]:.4g}" for name in ("loss", "grad_norm", "learning_rate") if name in shown)
        steps = (first.step, event.step)
        evidence = (Evidence(first.where, words),)
        key = "grad" if self.kind == "grad" else ""
        return Match(evidence=evidence, facts=facts, steps=steps, attempt=self.attempt, rank=event.rank, time=event.time, key=key)


_FEW_STEPS = 10
"""The samples of more steps are too many to look through."""


def _between(good: Step | None, first: Step) -> str | None:
    """The steps after the last good record up to the first bad one, where both are exact."""
    if good is None or not (good.exact and first.exact) or not 0 < first.step - good.step <= _FEW_STEPS:
        return None
    return str(first.step) if first.step == good.step + 1 else f"{good.step + 1}-{first.step}"


def _rate_differs(one: float | None, other: float | None) -> bool:
    """Whether both are known and differ by more than the rounding of a log."""
    return one is not None and other is not None and not math.isclose(one, other, rel_tol=0.02)


def _one_sided(metrics: dict[str, float]) -> bool:
    """Whether a class's metrics are missing or NaN while grad_norm is finite."""
    if not math.isfinite(metrics.get("grad_norm", math.nan)) or "kl" not in metrics:
        return False
    return any(not math.isfinite(metrics.get(name, math.nan)) for pair in CLASS_METRICS for name in pair)
