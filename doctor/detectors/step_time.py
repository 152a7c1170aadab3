"""`step_time`: where the wall time of training goes: pauses for evaluation and saving, stalls, steps that get slower."""

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

HELD = 1024
SLOWEST = 8


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """Wall time between two logs: `seconds` for the steps after `after` up to `step`; tokens where they are counted."""

    after: int
    step: int
    seconds: float
    evaluated: bool
    tokens: float | None
    where: Where

    @property
    def steps(self) -> int:
        """How many optimizer steps it holds."""
        return self.step - self.after

    def saved(self, every: int) -> bool:
        """Whether a checkpoint was written in it: like an evaluation, after the log of its step (transformers Trainer)."""
        return every > 0 and (self.step - 1) // every > (self.after - 1) // every


class StepTime(DetectorBase):
    """Time comes from the events alone: `step_seconds` of the live callback, wall times (TensorBoard, stamped lines), or the seconds since
    training began (trainer_log.jsonl: whole seconds). Nothing is said of stretches shorter than `resolution` seconds in all.

    Kinds, decided at the run's end: `eval`, `save` (their share of the wall time is at least `eval_share`, `save_share`; a save is looked
    for after multiples of save_steps, or told by `save_seconds` of the live callback), `stall` (one stretch without either took
    `stall_seconds` and `stall_times` the usual longer), `drift` (the last quarter's steps, per token where tokens are
    counted, take `drift` times those of the fastest earlier quarter).
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
        self.stretches: list[Stretch] = []
        self.slowest: list[Stretch] = []
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
        if "eval_loss" in metrics or "eval_runtime" in metrics:  # after the log of the same step (transformers Trainer)
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
            self._keep(Stretch(before.step, event.step, seconds, self.evaluated, trained, event.where))
        self.evaluated = False

    def _keep(self, stretch: Stretch) -> None:
        """Halves the resolution when full; the slowest stretches are also kept as they were."""
        self.stretches.append(stretch)
        if len(self.slowest) < SLOWEST or stretch.seconds > self.slowest[0].seconds:
            self.slowest = sorted([*self.slowest, stretch], key=lambda one: one.seconds)[-SLOWEST:]
        if len(self.stretches) > HELD:
            pairs = zip(self.stretches[::2], self.stretches[1::2], strict=False)
            rest = [self.stretches[-1]] if len(self.stretches) % 2 else []
            self.stretches = [_joined(a, b) for a, b in pairs] + rest

    def finish(self, run: Run) -> Iterator[Match]:
        total = sum(stretch.seconds for stretch in self.stretches)
        usual = median([stretch.seconds / stretch.steps for stretch in self.stretches]) if len(self.stretches) >= 4 else 0.0
        if total < self.resolution or usual <= 0 or self.last is None:
            yield from self._eval_without_clock(run)
            return
        saves = _save_steps(run)
        yield from self._pauses("eval", self.eval_share, total, usual, [one for one in self.stretches if one.evaluated])
        saving = [one for one in self.stretches if not one.evaluated and one.saved(saves)]
        if len(saving) < 0.5 * len(self.stretches) or self.save_seconds:
            yield from self._pauses("save", self.save_share, total, usual, saving)
        for stretch in reversed(self.slowest):
            pause = stretch.seconds - usual * stretch.steps
            if not (stretch.evaluated or stretch.saved(saves)) and pause >= max(
                self.stall_seconds, self.stall_times * usual * stretch.steps
            ):
                facts = {"step": stretch.step, "pause_seconds": pause, "share": 100 * pause / total, "step_seconds": usual}
                yield self._match("stall", stretch, f"{stretch.seconds:.0f} s for steps {stretch.after}-{stretch.step}", facts, total)
                break
        yield from self._drifts(total, saves)

    def _pauses(self, kind: str, least: float, total: float, usual: float, paused: list[Stretch]) -> Iterator[Match]:
        measured = self.eval_seconds if kind == "eval" else self.save_seconds
        pause = min(max(measured, sum(max(0.0, one.seconds - usual * one.steps) for one in paused)), total)
        number = self.evaluations if kind == "eval" else len(paused)
        if number < 2 or not paused or pause < least * total:  # one alone is not too often
            return
        facts = {
            "step": paused[0].step, "pause_seconds": pause / max(number, 1), "pauses": number, "share": 100 * pause / total,
            "step_seconds": usual, **_fewer(pause, number, total, least),
        }  # fmt: skip
        yield self._match(kind, paused[0], f"{number} pauses, {pause:.0f} s of {total:.0f} s", facts, total)

    def _eval_without_clock(self, run: Run) -> Iterator[Match]:
        """Where no log has a time: the evaluations' own run times against the whole training's (train_runtime)."""
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
        calm = [one for one in self.stretches if not (one.evaluated or one.saved(saves))] or self.stretches
        by_token = all(one.tokens for one in calm)
        work = [(one.tokens or 0.0) if by_token else float(one.steps) for one in calm]
        paces = [one.seconds / amount for one, amount in zip(calm, work, strict=True)]
        quarter = len(calm) // 4
        if quarter < 4 or min(sum(one.seconds for one in calm[i * quarter :][:quarter]) for i in range(4)) < self.resolution / 4:
            return
        early, late = min(median(paces[i * quarter :][:quarter]) for i in range(3)), median(paces[-quarter:])
        if early <= 0 or late < self.drift * early:
            return
        onset = _onset(paces, math.sqrt(early * late))
        lost = sum(max(0.0, one.seconds - early * amount) for one, amount in zip(calm[onset:], work[onset:], strict=True))
        facts = {"step": calm[onset].after, "value": late, "baseline": early, "ratio": late / early, "share": 100 * lost / total}
        text = f"steps from {calm[onset].after} on take {late / early:.2f} times as long as before"
        yield self._match("drift", calm[onset], text, facts, total)

    def _match(self, kind: str, stretch: Stretch, text: str, facts: dict[str, Any], total: float) -> Match:
        all_facts = {"kind": kind, "metric": "seconds", "total_seconds": total, **facts}
        last = self.stretches[-1].step if kind != "stall" else stretch.step
        return Match(evidence=(Evidence(stretch.where, text),), facts=all_facts, steps=(stretch.after, last), key=kind)


def _fewer(paused: float, number: int, total: float, least: float) -> dict[str, float]:
    """`fewer`: so many times fewer pauses (one of `number` is kept at least) take half of the share that is told; `left`: per cent then."""
    wanted, other = least / 2, max(total - paused, 1e-9)
    fewer = min(max(2, math.ceil(paused * (1 - wanted) / (wanted * other) - 1e-9)), max(number, 2))
    return {"fewer": fewer, "left": 100 * paused / (fewer * other + paused)}


def _onset(paces: list[float], limit: float) -> int:
    """From where on the paces stay above the limit, at most one in a row excepted."""
    place = len(paces) - 1
    while place > 1 and max(paces[place - 1], paces[place - 2]) > limit:
        place -= 1
    return place


def _between(before: Step, event: Step) -> float | None:
    """Seconds from one log to the next, by the best clock that both have."""
    mean = event.metrics.get("step_seconds")
    if mean is not None:
        return mean * (event.step - before.step)
    a, b = before.time, event.time
    if a is None or b is None:
        a, b = before.seconds, event.seconds
    return b - a if a is not None and b is not None and b >= a else None


def _joined(a: Stretch, b: Stretch) -> Stretch:
    tokens = a.tokens + b.tokens if a.tokens is not None and b.tokens is not None else None
    return Stretch(a.after, b.step, a.seconds + b.seconds, a.evaluated or b.evaluated, tokens, a.where)


def _save_steps(run: Run) -> int:
    value = run.config.get("save_steps")
    return value if type(value) is int and value > 0 and run.config.get("save_strategy", "steps") == "steps" else 0
