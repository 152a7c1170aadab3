"""`step_time`: wall time lost to evaluation, saving and stalls, and steps that get slower."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from doctor.core.events import Event, Step, Where
from doctor.core.facts import tokens_seen
from doctor.core.run import Run
from doctor.core.series import median
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

MAX_INTERVALS = 1024
"""Intervals kept; beyond, neighbours are merged in pairs, so memory is bounded."""

SLOWEST_KEPT = 8
"""Slowest intervals kept unmerged, to find stalls."""


class Interval(msgspec.Struct, frozen=True, gc=False):
    """Wall time between two logs: `seconds` for steps `after` + 1 to `step`; `tokens` if they are counted."""

    after: int
    step: int
    seconds: float
    evaluated: bool
    tokens: float | None
    where: Where

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return self.step - self.after

    def saved(self, every: int) -> bool:
        """Whether a checkpoint was written; like an evaluation, it follows the log of its step (transformers Trainer)."""
        return every > 0 and (self.step - 1) // every > (self.after - 1) // every


class StepTime(DetectorBase):
    """Sources of time: `step_seconds` of the live callback, wall times (TensorBoard, log lines with a time), or seconds since the start
    of training (trainer_log.jsonl, whole seconds). Runs shorter than `resolution` seconds are not judged.

    Fact `kind`, decided at the end of the run:

    - eval: evaluations take at least the share `eval_share` of the wall time.
    - save: checkpoints take at least `save_share`. A save is assumed after multiples of save_steps, or measured by the live callback
      (`save_seconds`).
    - stall: an interval without either took `stall_seconds`, and `stall_times` the usual time, longer than usual. An interval longer than
      the whole training (`train_runtime`) lies between two runs.
    - drift: steps of the last quarter take `drift` times as long as in the fastest earlier quarter, per token if tokens are counted.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("steps",)
    facts: tuple[str, ...] = (
        "kind", "metric", "step", "value", "baseline", "ratio", "share", "pause_seconds", "pauses", "total_seconds", "step_seconds",
        "fewer", "left",
    )  # fmt: skip

    def __init__(
        self, *, eval_share: float, save_share: float, stall_seconds: float, stall_times: float, drift: float, resolution: float
    ) -> None:
        self.eval_share, self.save_share, self.drift, self.resolution = eval_share, save_share, drift, resolution
        self.stall_seconds, self.stall_times = stall_seconds, stall_times
        self.intervals: list[Interval] = []
        self.slowest: list[Interval] = []
        self.last: Step | None = None
        self.tokens = 0.0
        self.evaluated = False
        self.eval_seconds = 0.0
        self.evaluations = 0
        self.first_eval: Step | None = None
        self.save_seconds = 0.0

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        metrics = event.metrics
        if "loss" in metrics or "step_seconds" in metrics:
            self._measure(event)
        if "save_seconds" in metrics:
            self.save_seconds += metrics["save_seconds"]
        if "eval_loss" in metrics or "eval_runtime" in metrics:  # follows the log of the same step (transformers Trainer)
            self.evaluated = True
            self.evaluations += 1
            self.first_eval = self.first_eval or event
            self.eval_seconds += metrics.get("eval_runtime", 0.0)
        return QUIET

    def _measure(self, event: Step) -> None:
        before, self.last = self.last, event
        before_tokens, tokens = self.tokens, tokens_seen(event.metrics) or 0.0
        self.tokens = tokens
        if before is None or before.attempt != event.attempt or event.step <= before.step or event.rank != before.rank:
            return
        seconds = _between(before, event)
        if seconds is not None:
            trained = tokens - before_tokens if before_tokens and tokens else None
            self._keep(Interval(before.step, event.step, seconds, self.evaluated, trained, event.where))
        self.evaluated = False

    def _keep(self, interval: Interval) -> None:
        """Add an interval; halve the resolution when full. The slowest intervals are also kept unmerged."""
        self.intervals.append(interval)
        if len(self.slowest) < SLOWEST_KEPT or interval.seconds > self.slowest[0].seconds:
            self.slowest = sorted([*self.slowest, interval], key=lambda interval: interval.seconds)[-SLOWEST_KEPT:]
        if len(self.intervals) > MAX_INTERVALS:
            pairs = zip(self.intervals[::2], self.intervals[1::2], strict=False)
            rest = [self.intervals[-1]] if len(self.intervals) % 2 else []
            self.intervals = [_merge(a, b) for a, b in pairs] + rest

    def finish(self, run: Run) -> Iterator[Match]:
        total = sum(interval.seconds for interval in self.intervals)
        usual = median([interval.seconds / interval.steps for interval in self.intervals]) if len(self.intervals) >= 4 else 0.0
        if total < self.resolution or usual <= 0 or self.last is None:
            yield from self._eval_without_clock(run)
            return
        saves = _save_steps(run)
        yield from self._pauses("eval", self.eval_share, total, usual, [interval for interval in self.intervals if interval.evaluated])
        saving = [interval for interval in self.intervals if not interval.evaluated and interval.saved(saves)]
        if len(saving) < 0.5 * len(self.intervals) or self.save_seconds:
            yield from self._pauses("save", self.save_share, total, usual, saving)
        yield from self._stall(run, total, usual, saves)
        yield from self._drifts(total, saves)

    def _stall(self, run: Run, total: float, usual: float, saves: int) -> Iterator[Match]:
        trained = run.facts.get("train.runtime_seconds")
        longest = trained if isinstance(trained, int | float) and trained > 0 else math.inf
        for interval in reversed(self.slowest):
            pause = interval.seconds - usual * interval.steps
            if interval.evaluated or interval.saved(saves) or interval.seconds > longest:
                continue
            if pause >= max(self.stall_seconds, self.stall_times * usual * interval.steps):
                facts = {"step": interval.step, "pause_seconds": pause, "share": 100 * pause / total, "step_seconds": usual}
                yield self._match("stall", interval, f"{interval.seconds:.0f} s for steps {interval.after}-{interval.step}", facts, total)
                return

    def _pauses(self, kind: str, least: float, total: float, usual: float, paused: list[Interval]) -> Iterator[Match]:
        measured = self.eval_seconds if kind == "eval" else self.save_seconds
        pause = min(max(measured, sum(max(0.0, interval.seconds - usual * interval.steps) for interval in paused)), total)
        number = self.evaluations if kind == "eval" else len(paused)
        if number < 2 or not paused or pause < least * total:  # a single pause is not too often
            return
        facts = {
            "step": paused[0].step, "pause_seconds": pause / max(number, 1), "pauses": number, "share": 100 * pause / total,
            "step_seconds": usual, **_fewer(pause, number, total, least),
        }  # fmt: skip
        yield self._match(kind, paused[0], f"{number} pauses, {pause:.0f} s of {total:.0f} s", facts, total)

    def _eval_without_clock(self, run: Run) -> Iterator[Match]:
        """Without times in the logs: compare the sum of eval_runtime with train_runtime."""
        total = run.facts.get("train.runtime_seconds")
        first = self.first_eval
        if first is None or self.evaluations < 2 or self.last is None or not isinstance(total, int | float) or not self.resolution <= total:
            return
        if not self.eval_share * total <= self.eval_seconds <= total:
            return
        share = 100 * self.eval_seconds / total
        facts = {
            "kind": "eval", "metric": "seconds", "step": first.step, "pause_seconds": self.eval_seconds / self.evaluations,
            "pauses": self.evaluations, "share": share, "total_seconds": total,
            **_fewer(self.eval_seconds, self.evaluations, total, self.eval_share),
        }  # fmt: skip
        text = f"{self.evaluations} evaluations, {self.eval_seconds:.0f} s of {total:.0f} s"
        yield Match(evidence=(Evidence(first.where, text),), facts=facts, steps=(first.step, self.last.step), key="eval")

    def _drifts(self, total: float, saves: int) -> Iterator[Match]:
        calm = [interval for interval in self.intervals if not (interval.evaluated or interval.saved(saves))] or self.intervals
        by_token = all(interval.tokens for interval in calm)
        work = [(interval.tokens or 0.0) if by_token else float(interval.steps) for interval in calm]
        paces = [interval.seconds / amount for interval, amount in zip(calm, work, strict=True)]
        quarter = len(calm) // 4
        if quarter < 4 or min(sum(interval.seconds for interval in calm[i * quarter :][:quarter]) for i in range(4)) < self.resolution / 4:
            return
        early, late = min(median(paces[i * quarter :][:quarter]) for i in range(3)), median(paces[-quarter:])
        if early <= 0 or late < self.drift * early:
            return
        onset = _onset(paces, math.sqrt(early * late))
        lost = sum(max(0.0, interval.seconds - early * amount) for interval, amount in zip(calm[onset:], work[onset:], strict=True))
        facts = {"step": calm[onset].after, "value": late, "baseline": early, "ratio": late / early, "share": 100 * lost / total}
        text = f"steps from {calm[onset].after} on take {late / early:.2f} times as long as before"
        yield self._match("drift", calm[onset], text, facts, total)

    def _match(self, kind: str, interval: Interval, text: str, facts: dict[str, Any], total: float) -> Match:
        all_facts = {"kind": kind, "metric": "seconds", "total_seconds": total, **facts}
        last = self.intervals[-1].step if kind != "stall" else interval.step
        return Match(evidence=(Evidence(interval.where, text),), facts=all_facts, steps=(interval.after, last), key=kind)


def _fewer(paused: float, number: int, total: float, least: float) -> dict[str, float]:
    """Facts of the advice: with 1/`fewer` of the pauses (at least one remains), they take `left` percent, half of the limit `least`."""
    wanted, other = least / 2, max(total - paused, 1e-9)
    fewer = min(max(2, math.ceil(paused * (1 - wanted) / (wanted * other) - 1e-9)), max(number, 2))
    return {"fewer": fewer, "left": 100 * paused / (fewer * other + paused)}


def _onset(paces: list[float], limit: float) -> int:
    """Index from which the paces stay above the limit, except for single intervals."""
    place = len(paces) - 1
    while place > 1 and max(paces[place - 1], paces[place - 2]) > limit:
        place -= 1
    return place


def _between(before: Step, event: Step) -> float | None:
    """Seconds between two logs, from the best source both have."""
    mean = event.metrics.get("step_seconds")
    if mean is not None:
        return mean * (event.step - before.step)
    a, b = before.time, event.time
    if a is None or b is None:
        a, b = before.seconds, event.seconds
    return b - a if a is not None and b is not None and b >= a else None


def _merge(a: Interval, b: Interval) -> Interval:
    tokens = a.tokens + b.tokens if a.tokens is not None and b.tokens is not None else None
    return Interval(a.after, b.step, a.seconds + b.seconds, a.evaluated or b.evaluated, tokens, a.where)


def _save_steps(run: Run) -> int:
    value = run.config.get("save_steps")
    return value if type(value) is int and value > 0 and run.config.get("save_strategy", "steps") == "steps" else 0
