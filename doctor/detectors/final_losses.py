"""`final_losses`: a finished run whose eval loss lies far above the mean of its training loss, after several passes over the data."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import ClassVar

from doctor.core.events import Event, Step, Where
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase, has_policy_loss
from doctor.rulebook.findings import Evidence, Match

_FEW = 2
"""Evaluations that show no course; more of them the curve detectors judge (`overfitting`)."""


class FinalLosses(DetectorBase):
    """Match if the eval loss is at least `ratio` times the training loss and `rise` above it, after at least `epochs` epochs.

    The training loss is the mean over the whole training, its high beginning included, so the gap at the end is wider still. A resumed
    run divides the loss of its own steps by all steps and says nothing. Facts: `train`, `eval` (nats per token), `ratio`, `epochs`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    facts: tuple[str, ...] = ("train", "eval", "ratio", "epochs")

    def __init__(self, *, ratio: float, rise: float, epochs: float) -> None:
        self.ratio, self.rise, self.epochs = ratio, rise, epochs

    def finish(self, run: Run) -> Iterator[Match]:
        train, epochs, (value, where) = run.facts.get("train.loss"), run.facts.get("epochs.planned"), _eval_loss(run)
        if not run.completed or "resumed_from" in run.facts or has_policy_loss(run.series):
            return
        if not isinstance(train, float) or value is None or where is None or not isinstance(epochs, int | float):
            return
        if not isfinite(value) or len(run.series.get("eval_loss") or ()) > _FEW:
            return
        if train <= 0 or epochs < self.epochs or value < self.ratio * train or value < train + self.rise:
            return
        text = f"train_loss {train:.4g} (mean of the training), eval_loss {value:.4g}, {epochs:g} epochs"
        facts = {"train": train, "eval": value, "ratio": value / train, "epochs": float(epochs)}
        yield Match(evidence=(Evidence(where, text),), facts=facts)


def _eval_loss(run: Run) -> tuple[float | None, Where | None]:
    """The eval loss of the closing evaluation, else the last that was logged; (None, None) without one."""
    stated = run.facts.get("eval.loss")
    if isinstance(stated, float):
        return stated, run.fact_where["eval.loss"]
    series = run.series.get("eval_loss")
    place = run.fact_where.get("train.loss")
    return (float(series.values[-1]), place) if series is not None and len(series.values) else (None, None)
