"""Infers the step of printed records that do not say it: from logging_steps, the progress bar and the epochs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from doctor.core.events import MAX_STEP, Step, Where
from doctor.readers.console.records import MetricRecord

PLAN = ("steps.planned", "steps.per_epoch", "epochs.planned", "examples.num", "batch.total")
"""Facts of the training's header from which the steps of records follow."""
_USUAL = (1, 10, 5, 2, 20, 50, 100, 25, 500, 200, 1000, 250, 4, 8, 3, 30, 40, 15)
"""Usual values of logging_steps, most frequent first; tried in this order where several are possible."""
_ROUNDED = 0.0051
"""Rounding error of epochs, printed with two decimals."""
_MAX_PENDING = 50
"""Records after which the cadence is decided."""
_AGREEING = 0.6
"""Share of distances that must agree (up to one step) for a cadence."""


class Pending(msgspec.Struct, gc=False):
    """A record whose step is not decided, its place, and the step of the training's bar next to it."""

    record: MetricRecord
    where: Where
    time: float | None
    bar: int | None


class StepInference:
    """Turns the printed records of one console into `Step`s.

    `config` may tell logging_steps and logging_first_step, `facts` the planned steps and epochs (another file may have printed them).
    """

    def __init__(self, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        given = config.get("logging_steps")
        self._given = given if type(given) is int and 0 < given <= MAX_STEP else None
        self._first_too = config.get("logging_first_step") is True
        self.restart()
        for name in PLAN:
            self.learn(name, facts.get(name))

    def restart(self) -> None:
        """Another training begins in the same console."""
        self.total: int | None = None
        self._plan: dict[str, Any] = dict.fromkeys(PLAN)
        self._cadence = self._given
        self._last = 0
        self._bar: int | None = None
        self._marks: list[int] = []
        self._pending: list[Pending] = []
        self._last_record: MetricRecord | None = None
        self._fresh = True

    def learn(self, name: str, value: Any) -> None:
        """Use a fact of the training's header; one larger than any step is none."""
        if isinstance(value, int | float) and not value <= MAX_STEP:
            return
        if name == "steps.planned":
            self.total = value
        elif name in PLAN:
            self._plan[name] = value

    def bar(self, step: int, total: int) -> bool:
        """Use a progress bar without label; return whether it is the training's."""
        if self.total is None and step <= 1 < total:
            self.total = total
        if total != self.total:
            return False
        self._bar = step
        if self._pending and self._pending[-1].bar is None:
            self._pending[-1].bar = step
        return True

    def mark(self, step: int, total: int) -> None:
        """The training's bar was cleared and redrawn at this step: a record was printed there, even if it comes later in the text."""
        self.total = self.total or total
        if self.bar(step, total) and len(self._marks) < _MAX_PENDING:
            self._marks.append(step)

    def feed(self, record: MetricRecord, where: Where, time: float | None) -> list[Step]:
        """Add a record; return the steps that are decided now."""
        before = self._last_record
        if not self._pending and self._cadence is not None and not record.logger and (before is None or not before.logger):
            self._last_record = record
            return [self._with_step(record, where, time)]
        if self._pending and _same(self._pending[-1].record, record):
            _join(self._pending[-1].record, record)
        elif before is not None and _same(before, record):
            return []
        else:
            self._pending.append(Pending(record, where, time, None))
        if self._cadence is None and record.step is None and len(self._pending) < _MAX_PENDING:
            return []
        keep = self._pending[-1:] if record.logger else []
        self._pending = self._pending[: len(self._pending) - len(keep)]
        decided = self.flush()
        self._pending = keep
        return decided

    def flush(self) -> list[Step]:
        """Decide all pending records (the text ended, or another training begins)."""
        records, self._pending = self._pending, []
        if records and self._cadence is None and any(pending.record.step is None for pending in records):
            self._decide([pending for pending in records if "loss" in pending.record.metrics and pending.record.step is None])
        if records:
            self._last_record = records[-1].record
        return [self._with_step(pending.record, pending.where, pending.time) for pending in records]

    def _with_step(self, record: MetricRecord, where: Where, time: float | None) -> Step:
        told = record.step if record.step is not None and record.step <= MAX_STEP else None
        exact, step = told is not None, self._next_step(record) if told is None else told
        if "loss" in record.metrics or exact:
            self._last = step
            self._fresh = False
        self.total = record.total or self.total
        return Step(where=where, step=step, metrics=record.metrics, seconds=record.seconds, exact=exact, time=time)

    def _next_step(self, record: MetricRecord) -> int:
        per_epoch, epoch = self._steps_per_epoch(), record.metrics.get("epoch", math.nan)
        cadence = self._cadence or 1
        trained = "loss" in record.metrics
        if trained and self._first_too and self._fresh:
            return 1
        step = (self._last // cadence + 1) * cadence if trained else self._last
        place = epoch * per_epoch if per_epoch else math.nan
        if not abs(place) <= MAX_STEP or abs(place - step) <= cadence or not per_epoch:  # also a place that is not a number
            return step
        near = round(place)
        if abs(near - step) <= _slack(per_epoch) + cadence:
            return step
        return max(1, round(near / cadence)) * cadence if trained else near

    def _steps_per_epoch(self) -> float | None:
        per_epoch: float | None
        per_epoch, epochs, examples, batch = (self._plan[name] for name in PLAN[1:])
        if per_epoch:
            return per_epoch
        planned: float | None = self.total / epochs if self.total and epochs else None
        whole = math.ceil(examples / batch) if examples and batch else None
        if planned is None or whole is None:
            return planned
        # max_steps may end the last epoch early, and the header counts it as a whole one (transformers, trainer.py)
        return whole if whole - planned > 1 else planned

    def _decide(self, records: list[Pending]) -> None:
        """Decide the logging cadence from the first records, and whether step 1 was logged too (logging_first_step)."""
        epochs = [pending.record.metrics.get("epoch", math.nan) for pending in records]
        if len(epochs) > 2 and 0 <= epochs[0] < 0.5 * (epochs[2] - epochs[1]):
            self._first_too = True
        marks = [mark for mark in self._marks if mark > self._last]
        if len(marks) > 2 and marks[0] == 1 and marks[2] - marks[1] > 1:
            self._first_too = True
        regular = records[self._first_too :]
        self._cadence = (
            _regular(marks[self._first_too :])
            or self._from_epochs(regular)
            or self._from_bars(regular)
            or (self._from_warmup(records) if self._first_too else None)
            or (1 if records else None)
        )

    def _from_warmup(self, records: list[Pending]) -> int | None:
        """The cadence if step 1 was logged too: in a linear warm-up the learning rate is proportional to the step."""
        rates = [pending.record.metrics.get("learning_rate", 0.0) for pending in records[:2]]
        ratio = rates[1] / rates[0] if len(rates) == 2 and rates[0] > 0 else 0.0
        return next((cadence for cadence in _USUAL if cadence > 1 and abs(ratio - cadence) < 0.02 * cadence), None)

    def _from_bars(self, records: list[Pending]) -> int | None:
        """The cadence from the bars after the records, if most distances agree (with buffered standard output they do not)."""
        bars = [pending.bar for pending in records if pending.bar is not None]
        if len(bars) < 2 or len(bars) < _AGREEING * len(records):
            steps = (self._bar or 0) - self._last
            return _usual([(steps, len(records))]) if steps > 0 and records and len(records) <= 3 else None
        return _regular(bars)

    def _from_epochs(self, records: list[Pending]) -> int | None:
        per_epoch = self._steps_per_epoch()
        epochs = [pending.record.metrics.get("epoch", math.nan) for pending in records]
        if not per_epoch or not epochs or not all(map(math.isfinite, epochs)) or epochs[0] < 0:
            return None
        places = [epoch * per_epoch for epoch in epochs]
        slack = _slack(per_epoch) - 0.4
        for cadence in _USUAL:
            if all(abs(self._last + cadence * (i + 1) - place) <= slack for i, place in enumerate(places)):
                return cadence
        return max(1, round((places[-1] - self._last) / len(places)))


def _slack(per_epoch: float | None) -> float:
    """Error of a step, in steps, that rounding the epoch to two decimals can cause."""
    return _ROUNDED * (per_epoch or 0) + 1


def _regular(steps: list[int]) -> int | None:
    """The distance of most neighbours, up to one step of lag."""
    distances = [later - earlier for earlier, later in pairwise(steps)]
    if not distances:
        return None
    middle = statistics.median(distances)
    agreeing = sum(abs(distance - middle) <= 1 for distance in distances)
    if middle <= 0 or agreeing < _AGREEING * len(distances):
        return None
    return _usual([(round(middle), 1)]) or round(middle)


def _usual(distances: list[tuple[int, int]]) -> int | None:
    """The usual cadence that fits (steps, records) up to one step of lag."""
    for cadence in _USUAL:
        if all(0 <= cadence * count - steps <= 1 or cadence * count == steps - 1 for steps, count in distances):
            return cadence
    return None


def _same(a: MetricRecord, b: MetricRecord) -> bool:
    """Whether LLaMA-Factory's logger and the Trainer printed the same record, one after the other."""
    if a.logger == b.logger or "loss" not in a.metrics or "loss" not in b.metrics:
        return False
    epochs = a.metrics.get("epoch"), b.metrics.get("epoch")
    return epochs[0] is not None and epochs[1] is not None and abs(epochs[0] - epochs[1]) <= _ROUNDED


def _join(first: MetricRecord, second: MetricRecord) -> None:
    """Add the second record to the first; the Trainer's values are kept, they have more digits."""
    fuller = first.metrics if second.logger else second.metrics
    first.metrics = {**first.metrics, **second.metrics, **fuller}
    first.logger = False
