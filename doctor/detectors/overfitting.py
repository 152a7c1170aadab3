"""`overfitting`: the eval loss rises above its best value while the training loss falls, or both rise."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import median
from doctor.detectors.base import QUIET, DetectorBase, has_policy_loss
from doctor.rulebook.findings import Evidence, Match

SPARE = 1.1
"""A shortened training gets a tenth more than its best evaluation took: with fewer steps the rate falls earlier."""
_MANY = 12
"""Evaluations from which on their levels are compared: most runs have fewer, and each of theirs counts."""


_FAR = 0.1
"""Share of the first training loss from which on an eval loss that rose counts as a divergence."""


class Best(NamedTuple):
    """The best evaluation of a metric: value, step, training loss at that step, number of worse evaluations since."""

    value: float
    step: int
    train: float | None
    after: int


class Level:
    """The last three evaluations of a metric, their number and the lowest median of three in a row."""

    def __init__(self) -> None:
        self.last: deque[float] = deque(maxlen=3)
        self.count = 0
        self.lowest = math.inf

    def add(self, value: float) -> None:
        """One more evaluation."""
        self.last.append(value)
        self.count += 1
        if len(self.last) == 3:
            self.lowest = min(self.lowest, median(self.last))


class Overfitting(DetectorBase):
    """Per eval loss (`eval_loss`, `eval_<dataset>_loss`): the last `patience` evaluations are worse than the best.

    The last exceeds the best by the share `margin` and by `rise` in loss; from the 12th evaluation on the medians of three must do so, as
    the lowest of many noisy values lies far below their level. The training loss is the median of 3 logs at the best
    evaluation and of 7 logs now. Fact `kind`:

    - overfitting: the training loss fell by the share `fall`.
    - diverging: the training loss rose by twice `margin`, and the eval loss by the share `both`, to a tenth at least of the first
      training loss: near zero, a run that knows its data wobbles by large shares.

    Fact `as_good` is the eval loss up to which an evaluation counts as no worse than the best. Fact `at` is the step of the evaluation
    that tells it. `improved` turns true in the facts of a match that was already given once a later evaluation is better than its best.
    `best_share`: the part of the planned training that the best evaluation took, with a tenth on top.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.eval_loss",)
    facts: tuple[str, ...] = (
        "kind",
        "metric",
        "step",
        "value",
        "baseline",
        "ratio",
        "train_before",
        "train_now",
        "evaluations",
        "learning_rate",
        "at",
        "improved",
        "as_good",
        "best_share",
    )

    def __init__(self, *, margin: float, rise: float, patience: int, fall: float, both: float) -> None:
        self.margin, self.rise, self.patience, self.fall, self.both = margin, rise, patience, fall, both
        self.lr_peak = self.start = 0.0
        self.train: deque[float] = deque(maxlen=7)
        self.best: dict[str, Best] = {}
        self.levels: dict[str, Level] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        """The facts of the matches since a metric's best evaluation; few, as a match needs a rise."""
        self.usual: frozenset[str] = frozenset()
        """Metric names of the last record without an evaluation; a fast path, as most records have the same."""

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        metrics = event.metrics
        loss = metrics.get("loss")
        if loss is not None and math.isfinite(loss):
            self.train.append(loss)
            self.start = self.start or loss
            rate = metrics.get("learning_rate")
            if rate is not None and rate > self.lr_peak:
                self.lr_peak = rate
        if metrics.keys() == self.usual or has_policy_loss(event.metrics):
            return QUIET
        names = [name for name in metrics if name.startswith("eval_") and name.endswith("loss")]
        if not names:
            self.usual = frozenset(metrics)
            return QUIET
        return iter([match for name in names for match in self._take(event, name, metrics[name], run)])

    def _with_share(self, match: Match, best: Best, run: Run) -> Match:
        planned = run.facts.get("steps.planned")
        if isinstance(planned, int) and planned > best.step:
            match.facts["best_share"] = round(min(1.0, SPARE * best.step / planned), 3)
        return match

    def _take(self, event: Step, name: str, value: float, run: Run) -> list[Match]:
        if not math.isfinite(value) or (name not in self.best and len(self.best) >= 32):
            return []
        now = median(self.train) if self.train else None
        level = self.levels.setdefault(name, Level())
        level.add(value)
        best = self.best.get(name)
        if best is None or value < best.value:
            # only three logs: in a fast falling loss older logs would raise the median
            self.best[name] = Best(value, event.step, median(list(self.train)[-3:]) if self.train else None, 0)
            for facts in self.told.pop(name, ()):
                facts["improved"] = True
            return []
        if event.step <= best.step:  # a second evaluation at the same step: another dataset under the same name, or a resume
            return []
        # an evaluation close to the best restarts the count
        after = best.after + 1 if value > best.value * (1 + self.margin / 2) else 0
        self.best[name] = best = best._replace(after=after)
        rose = self._rose(value, best.value) and (level.count < _MANY or self._rose(median(level.last), level.lowest))
        if not rose or after < self.patience or best.train is None or now is None:
            return []
        if now < best.train * (1 - self.fall):
            return [self._with_share(self._match("overfitting", event, name, value, best, now), best, run)]
        far = value >= best.value * (1 + self.both) and value >= _FAR * self.start
        if now > best.train * (1 + 2 * self.margin) and far:
            return [self._match("diverging", event, name, value, best, now)]
        return []

    def _rose(self, value: float, best: float) -> bool:
        return value >= best * (1 + self.margin) and value >= best + self.rise

    def _match(self, kind: str, event: Step, name: str, value: float, best: Best, now: float) -> Match:
        facts: dict[str, Any] = {
            "kind": kind, "metric": name, "step": best.step, "value": value, "baseline": best.value, "ratio": value / max(best.value, 1e-9),
            "train_before": best.train, "train_now": now, "evaluations": best.after, "at": event.step, "improved": False,
            "as_good": best.value * (1 + self.margin / 2),
        }  # fmt: skip
        self.told.setdefault(name, []).append(facts)
        if self.lr_peak:
            facts["learning_rate"] = self.lr_peak
        text = f"{name} {value:.4g} at step {event.step}, best {best.value:.4g} at step {best.step}; training loss "
        text += f"{best.train:.4g} -> {now:.4g}"
        evidence = (Evidence(event.where, text),)
        return Match(
            evidence=evidence, facts=facts, steps=(best.step, event.step), attempt=event.attempt, rank=event.rank, key=f"{kind} {name}"
        )
