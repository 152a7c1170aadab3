"""`preference`: metrics of DPO, KTO, ORPO, reward models and PPO: accuracy at chance, collapsing log-probabilities, falling reward."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

METRICS = ("loss", "rewards/accuracies", "rewards/margins", "logps/chosen", "reward", "eval_accuracy")
"""Metrics followed, as named by trl and LLaMA-Factory."""

GUESSING = math.log(2)
"""Loss of a pair that is guessed: -log sigmoid(0), where reward models and DPO's sigmoid loss begin."""

WORSE, WORSE_LOGS = 1.5, 20
"""A run of at least so many logs whose loss in the second half is so many times that of guessing has lost what it had."""

OVERCONFIDENT = 4.0
"""The same where most pairs are told apart: a few wrong ones with a large margin raise the mean (pref_beta 0.5 and more), the model has
learnt all the same. Runs of the lab with a learning rate of 1, or pref_beta 100, were right in 90 % of the pairs at 10 and 23 times."""

REVERSED, REVERSED_LOGS = 0.9, 10
"""Share of at least so many margins that are negative. A training pulls margins up; of 10 guessed ones 9 are negative in 1 % of
runs."""

WINDOW = 50
"""Logs kept at each end of a metric."""


class MetricEnds:
    """The first and the last `WINDOW` logs of a metric, and the number of all logs."""

    __slots__ = ("count", "early", "first", "late")

    def __init__(self) -> None:
        self.count = 0
        self.first: Step | None = None
        self.early: list[float] = []
        self.late: deque[float] = deque(maxlen=WINDOW)

    def add(self, event: Step, value: float) -> None:
        """Add a finite value."""
        self.count += 1
        self.first = self.first or event
        if len(self.early) < WINDOW:
            self.early.append(value)
        self.late.append(value)

    @property
    def late_mean(self) -> float:
        """Mean of the last logs."""
        return _mean(self.late)

    @property
    def second_half(self) -> list[float]:
        """The second half of all logs, at most the last `WINDOW`."""
        return list(self.late)[-max(self.count // 2, 1) :]


class Preference(DetectorBase):
    """Judged at the end of the run. Fact `kind`; those of the accuracies, log-probabilities and the reward need `records` logs:

    - chance: the mean of the last 50 rewards/accuracies is within `band` of 0.5.
    - collapse: logps/chosen ends `fall` times as far below zero as it began; the model unlearns the chosen answers too.
    - reward_falls: PPO's reward ends below the lowest of its first 25 logs.
    - worse_than_guessing: of a run of pairs (a reward model, or rewards/accuracies is logged) that began near log 2, as guessing does, the
      mean loss of the second half is far above that. 20 logs are enough.
    - no_better: the same, but not below that of guessing; alone no proof, as noisy pairs look the same.
    - reversed: nearly all rewards/margins of the second half are negative, and their mean is below `-band`: the rejected answers win.
    - weak_reward_model: the last eval_accuracy of a reward model is at most 0.5 + `band`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("steps",)
    facts: tuple[str, ...] = ("kind", "metric", "step", "value", "baseline", "records", "lr_peak")

    def __init__(self, *, records: int, band: float, fall: float) -> None:
        self.records, self.band, self.fall = records, band, fall
        self.metrics: dict[str, MetricEnds] = {}
        self.last: Step | None = None
        self.lr_peak = 0.0

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        metrics = event.metrics
        self.lr_peak = max(self.lr_peak, metrics.get("learning_rate", 0.0))
        for name in METRICS:
            value = metrics.get(name)
            if value is not None and math.isfinite(value):
                self.metrics.setdefault(name, MetricEnds()).add(event, value)
                self.last = event
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        for name, ends in self.metrics.items():
            verdict = self._verdict(name, ends, run)
            if verdict is not None and ends.first is not None and self.last is not None:
                yield self._match(verdict, name, ends, ends.first, self.last)

    def _verdict(self, name: str, ends: MetricEnds, run: Run) -> str | None:
        enough = ends.count >= self.records
        if name == "loss" and ends.count >= WORSE_LOGS and self._began_guessing(ends, run):
            return self._against_guessing(_mean(ends.second_half) / GUESSING)
        if name == "rewards/margins" and self._is_reversed(ends.second_half):
            return "reversed"
        if name == "rewards/accuracies" and enough and abs(ends.late_mean - 0.5) <= self.band:
            return "chance"
        if name == "logps/chosen" and enough and ends.late_mean < self.fall * _mean(ends.early[: WINDOW // 5]) < 0:
            return "collapse"
        if name == "reward" and enough and ends.late_mean < min(ends.early[: WINDOW // 2]):
            return "reward_falls"
        if name == "eval_accuracy" and run.config.get("stage") == "rm" and ends.late[-1] <= 0.5 + self.band:
            return "weak_reward_model"
        return None

    def _began_guessing(self, ends: MetricEnds, run: Run) -> bool:
        pairs = run.config.get("stage") == "rm" or "rewards/accuracies" in self.metrics
        return pairs and abs(ends.early[0] / GUESSING - 1) <= 0.15

    def _against_guessing(self, ratio: float) -> str | None:
        """The verdict on a mean loss `ratio` times that of guessing."""
        accuracies = self.metrics.get("rewards/accuracies")
        learnt = accuracies is not None and _mean(accuracies.second_half) > 0.5 + self.band
        if ratio > (OVERCONFIDENT if learnt else WORSE):
            return "worse_than_guessing"
        return "no_better" if ratio >= 1 and not learnt else None

    def _is_reversed(self, margins: Collection[float]) -> bool:
        negative = sum(margin < 0 for margin in margins)
        return len(margins) >= REVERSED_LOGS and negative >= REVERSED * len(margins) and _mean(margins) < -self.band

    def _match(self, kind: str, name: str, ends: MetricEnds, first: Step, last: Step) -> Match:
        before, now = _mean(ends.early[: WINDOW // 5]), ends.late_mean
        facts: dict[str, Any] = {
            "kind": kind, "metric": name, "step": first.step, "value": now, "baseline": before, "records": ends.count,
            "lr_peak": self.lr_peak,
        }  # fmt: skip
        evidence = (Evidence(last.where, f"{name}: {before:.4g} at first, {now:.4g} at the end ({ends.count} logs)"),)
        return Match(evidence=evidence, facts=facts, steps=(first.step, last.step), attempt=last.attempt, time=last.time, key=kind)


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)
