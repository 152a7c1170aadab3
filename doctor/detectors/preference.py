"""`preference`: the numbers of DPO, KTO, ORPO, reward models and PPO: accuracy at chance, collapsing log-probabilities, falling reward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import SortedWindow
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

NAMES = ("rewards/accuracies", "logps/chosen", "reward", "eval_accuracy")
HELD = 50


class Course:
    """A metric's first logs (median of up to `HELD`), its last ones, and how many there were."""

    __slots__ = ("count", "early", "first", "late")

    def __init__(self) -> None:
        self.count = 0
        self.first: Step | None = None
        self.early: list[float] = []
        self.late = SortedWindow(HELD)

    def add(self, event: Step, value: float) -> None:
        """Takes one finite value."""
        self.count += 1
        self.first = self.first or event
        if len(self.early) < HELD:
            self.early.append(value)
        self.late.add(value)

    @property
    def late_mean(self) -> float:
        """The mean of the last logs."""
        return sum(self.late.values) / len(self.late)


class Preference(DetectorBase):
    """All at the run's end, each a `kind`:

    chance: at least `records` logs, and the mean of the last 50 rewards/accuracies within `band` of 0.5.
    collapse: logps/chosen ended `fall` times as far below zero as it began (the model unlearns the chosen answers, too).
    reward_falls: PPO's reward ended below its start by more than the start's own spread, after at least `records` logs.
    weak_reward_model: the last eval_accuracy (rm) is not above 0.5 + `band`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("steps",)
    facts: tuple[str, ...] = ("kind", "metric", "step", "value", "baseline", "records")

    def __init__(self, *, records: int, band: float, fall: float) -> None:
        self.records, self.band, self.fall = records, band, fall
        self.courses: dict[str, Course] = {}
        self.last: Step | None = None

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        metrics = event.metrics
        for name in NAMES:
            value = metrics.get(name)
            if value is not None and math.isfinite(value):
                self.courses.setdefault(name, Course()).add(event, value)
                self.last = event
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        for name, course in self.courses.items():
            verdict = self._verdict(name, course, run)
            if verdict is not None and course.first is not None and self.last is not None:
                yield self._match(verdict, name, course, course.first, self.last)

    def _verdict(self, name: str, course: Course, run: Run) -> str | None:
        enough = course.count >= self.records
        if name == "rewards/accuracies" and enough and abs(course.late_mean - 0.5) <= self.band:
            return "chance"
        if name == "logps/chosen" and enough and course.late_mean < self.fall * _mean(course.early[: HELD // 5]) < 0:
            return "collapse"
        if name == "reward" and enough and course.late_mean < min(course.early[: HELD // 2]):
            return "reward_falls"
        if name == "eval_accuracy" and run.config.get("stage") == "rm" and course.late.values[-1] <= 0.5 + self.band:
            return "weak_reward_model"
        return None

    def _match(self, kind: str, name: str, course: Course, first: Step, last: Step) -> Match:
        before, now = _mean(course.early[: HELD // 5]), course.late_mean
        facts: dict[str, Any] = {
            "kind": kind, "metric": name, "step": first.step, "value": now, "baseline": before, "records": course.count,
        }  # fmt: skip
        evidence = (Evidence(last.where, f"{name}: {before:.4g} at first, {now:.4g} at the end ({course.count} logs)"),)
        return Match(evidence=evidence, facts=facts, steps=(first.step, last.step), attempt=last.attempt, time=last.time, key=kind)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
