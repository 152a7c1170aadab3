"""`divergence`: the loss rises well above its best level and stays there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import msgspec

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.core.series import SortedWindow, median
from doctor.detectors.base import QUIET, DetectorBase, has_policy_loss
from doctor.rulebook.findings import Evidence, Match

NORMAL_ABS_MEDIAN = 0.6745
"""Median of |x| for a standard normal x: converts a median of differences to sigma."""

NORMAL_ABS_Q90 = 1.6449
"""90th percentile of |x| for a standard normal x."""

GAIN = math.log(1 / 0.85)
"""A loss that exploded at the start and ends less than 15 % below it has gained nothing: sane runs of the lab on the same data gained 35 to
55 %, with learning rates and scales 1,000 times the usual ones -6 to 8 %."""

MEDIAN_ERROR = 1.2533
"""sqrt(pi / 2): the standard error of a median of n normal values is 1.2533 sigma / sqrt(n)."""


class Divergence(DetectorBase):
    """Compare loss levels on log(loss + `offset`): the median of the last `hold` records with the lowest median of `best` records so far.

    A match needs a rise by all of:

    - the factor `ratio`,
    - `z` standard errors of the level; sigma comes from the differences of the last `noise` records, so trends do not count,
    - `lift` times the 90th percentile of earlier rises between levels (slow swings of the data).

    Runs of fewer than 12 records are judged at the end: the last third must be above `short_ratio` times the first records. So is a run
    that rose within its first 12 records and never came back to the first one (fact `from_start`), or whose level was `ratio` times the
    first one meanwhile and ends less than GAIN below it (fact `back_at_start`; alone no proof, as harder data look the same).
    The episode ends when the level falls back by half of the required rise: its last match has the fact `recovered`. So has one that is
    open at the end if the level has lost half of its rise and is less than `short_ratio` times the best one.

    A loss that is high in the very first record after a checkpoint, one step behind it, comes from other data: no step was trained in
    between. The levels from before are then forgotten.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.loss",)
    facts: tuple[str, ...] = (
        "metric",
        "step",
        "value",
        "baseline",
        "ratio",
        "learning_rate",
        "lr_peak",
        "after_warmup",
        "from_start",
        "back_at_start",
        "recovered",
    )

    def __init__(
        self,
        *,
        hold: int,
        best: int,
        noise: int,
        z: float,
        lift: float,
        ratio: float,
        short_ratio: float,
        offset: float = 0.05,
        floor: float = 0.03,
    ) -> None:
        self.hold, self.best_of, self.noise, self.z, self.lift = hold, best, noise, z, lift
        self.rise, self.short_rise, self.offset, self.floor = math.log(ratio), math.log(short_ratio), offset, floor
        self._restart(0)

    def _restart(self, attempt: int) -> None:
        self.attempt = attempt
        self.signed = False
        self.count = 0
        self.best: float | None = None
        self.level: deque[float] = deque(maxlen=self.hold)
        self.slow = SortedWindow(self.best_of)
        self.moves = SortedWindow(self.noise)
        self.lifts = SortedWindow(self.noise // self.hold)
        self.level_before: float | None = None
        self.last: float | None = None
        self.short: list[tuple[Step, float]] = []
        self.since: Step | None = None
        self.below = 0
        self.open = self.matched = False
        self.now: Step | None = None
        self.peak = (0.0, 0)
        self.first_rate: float | None = None
        self.history_step: int | None = None
        self.top = self.highest = -math.inf

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        loss = event.metrics.get("loss")
        if loss is None or loss == 0.0 or not math.isfinite(loss) or has_policy_loss(event.metrics):
            return QUIET
        ended: list[Match] = []
        if event.attempt != self.attempt:
            ended = list(self.finish(run))
            self._restart(event.attempt)
        if loss < -0.01:
            self.signed = True
        level = math.log(max(loss, 0.0) + self.offset)
        if self.history_step == event.step - 1 and not event.history and self._is_jump(level):
            self._restart(event.attempt)
        self.history_step = event.step if event.history else None
        found = [] if self.signed else self._take(event, level)
        return iter(ended + found) if ended or found else QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        if self.open and self.now is not None and self.best is not None:
            now = median(self.level)
            recovered = now - self.best < min(self.short_rise, (self.top - self.best) / 2)
            yield self._match(self.now, now, self.best, self.since or self.now, recovered=recovered)
        elif self.count < 12:
            yield from self._judge_short()
        elif not self.matched:
            yield from self._judge_start()

    def _take(self, event: Step, level: float) -> list[Match]:
        self.count += 1
        self.now = event
        if len(self.short) < 12:
            self.short.append((event, level))
        rate = event.metrics.get("learning_rate")
        if rate is not None:
            self.first_rate = rate if self.first_rate is None else self.first_rate
            if rate > self.peak[0]:
                self.peak = (rate, event.step)
        if self.last is not None:
            self.moves.add(abs(level - self.last))
        self.last = level
        self.level.append(level)
        found = [] if self.best is None or len(self.level) < self.hold else self._judge(event, level, self.best)
        if self.count % self.hold == 0:
            self.highest = max(self.highest, median(self.level))
        if self.count % self.hold == 0 and not self.since:
            now = median(self.level)
            if self.level_before is not None:
                self.lifts.add(max(0.0, now - self.level_before))
            self.level_before = now
        self.slow.add(level)
        if self.count % 3 == 0 and len(self.slow) >= min(self.best_of, 12):  # the median changes little from record to record
            slow = self.slow.median
            self.best = slow if self.best is None else min(self.best, slow)
        return found

    def _is_jump(self, level: float) -> bool:
        """Whether a single record is above the level by more than a rise and noise."""
        return bool(self.level) and level - median(self.level) > max(self.rise, 3 * self._sigma())

    def _judge(self, event: Step, level: float, best: float) -> list[Match]:
        """Track the first record above half of the required rise and confirm or end an episode.

        Two records in a row below that limit forget the start. Outside an episode such a record needs no further check.
        """
        if self.open:
            now = median(self.level)
            self.top = max(self.top, now)
            if now - best >= self.rise / 2:
                return []
            self.open = False
            return [self._match(event, now, best, self.since or event, recovered=True)]
        if level <= best + self.rise / 2:
            self.below += 1
            if self.below >= 2:
                self.since = None
            return []
        self.below = 0
        self.since = self.since or event
        now = median(self.level)
        rise = now - best
        if rise <= self.rise or rise <= self._noise():
            return []
        self.open = self.matched = True
        self.top = now
        return [self._match(event, now, best, self.since)]

    def _noise(self) -> float:
        """The rise of the level that noise explains."""
        swings = self.lifts.quantile(0.9) if len(self.lifts) else 0.0
        return max(self.z * self._sigma() * MEDIAN_ERROR / math.sqrt(self.hold), self.lift * swings)

    def _sigma(self) -> float:
        """Standard deviation of one record, from the differences between neighbours."""
        moves = self.moves
        return max(self.floor, moves.median / NORMAL_ABS_MEDIAN / math.sqrt(2), moves.quantile(0.9) / NORMAL_ABS_Q90 / math.sqrt(2))

    def _judge_short(self) -> Iterator[Match]:
        """Judge a run of 5 to 11 records: the last third against the lowest of the first third."""
        third = len(self.short) // 3
        if len(self.short) < 5:
            return
        levels = [level for _, level in self.short]
        best, tail = min(levels[: max(third, 1)]), levels[-max(third, 2) :]
        sigma = max(self.floor, median([abs(b - a) for a, b in pairwise(levels)]) / NORMAL_ABS_MEDIAN / math.sqrt(2))
        if min(tail) - best <= max(self.short_rise, 2 * sigma):
            return
        since = next(event for event, level in self.short if level > best + self.short_rise / 2)
        yield self._match(self.short[-1][0], median(tail), best, since)

    def _judge_start(self) -> Iterator[Match]:
        """Judge a whole run against its first record: one that rose within its first records never had a best level to rise from.

        The rise must be more than noise makes of a single record, and neither the lowest level nor the last, nor the last three records
        may lie below the first one.
        """
        if self.best is None or self.now is None:
            return
        start, level = self._untrained(), median(self.level)
        never_back = min(self.best, level, median(list(self.level)[-3:])) > start
        sustained = self.highest > start + max(self.rise, self._noise()) and level > start - GAIN
        limit = start + (max(self.rise, self.z * self._sigma()) if never_back else self.rise)
        since = next((event for event, early in self.short if early > limit), None)
        if since is not None and (never_back or sustained):
            match = self._match(self.now, level, start, since)
            yield msgspec.structs.replace(match, facts={**match.facts, "from_start": never_back, "back_at_start": not never_back})

    def _untrained(self) -> float:
        """The level before the weights changed: of the first record, or the higher one of two if a warm-up from 0 began with the first."""
        (first, level), (_, second) = self.short[:2]
        return max(level, second) if first.step == 1 and first.metrics.get("learning_rate") == 0.0 else level

    def _after_warmup(self, since: Step, rate: float) -> bool:
        """Whether the rise began near the peak learning rate, during warm-up or within its length afterwards."""
        peak, step = self.peak
        warmed = self.first_rate is not None and self.first_rate < 0.5 * peak
        return warmed and rate >= 0.8 * peak and since.step <= 2 * step

    def _match(self, event: Step, level: float, best_level: float, since: Step, *, recovered: bool = False) -> Match:
        best = max(math.exp(best_level) - self.offset, 1e-9)
        value = math.exp(level) - self.offset
        facts: dict[str, Any] = {"metric": "loss", "step": since.step, "value": value, "baseline": best, "ratio": value / best}
        facts["recovered"] = recovered
        rate = since.metrics.get("learning_rate")
        if rate is not None:
            facts |= {"learning_rate": rate, "lr_peak": self.peak[0], "after_warmup": self._after_warmup(since, rate)}
        text = f"loss about {value:.4g} up to step {event.step}; its best level was {best:.4g}"
        evidence = (Evidence(since.where, text),)
        steps = (since.step, event.step)
        return Match(evidence=evidence, facts=facts, steps=steps, rank=event.rank, attempt=self.attempt, time=event.time, closes=recovered)
