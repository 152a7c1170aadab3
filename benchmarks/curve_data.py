"""Load logged loss curves as Step events, inject known changes, and score a detector on both.

A curve is a JSON file {id, source, records: {step, loss, grad_norm?, learning_rate?, epoch?}, eval: [[step, loss], ...],
labels: [{label, first, last, unit, confidence}, ...]}; "nan", "inf" and "-inf" are strings.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from doctor.core.events import Step, Where
from doctor.core.run import Run
from doctor.detectors.base import Detector

KINDS = ("point_x2", "point_x3", "bump_x2", "shift_x1.5", "shift_x3", "ramp_x3")
"""Injected changes: shape and factor on the loss."""

BENIGN = frozenset(
    "healthy staircase periodic near_zero partial_snapshot interrupted resumed gradnorm_nonfinite early_stopped".split()  # noqa: SIM905
)
"""Labels on which every alarm is a nuisance."""

UNSCORED = frozenset(
    "mixed_runs rl_uninformative noisy_unscorable duplicate_writers truncated_log not_training restarted crashed".split()  # noqa: SIM905
)
"""Labels of curves that are not scored."""

LAST = 800
"""Changes are injected into this many last records."""

RANGE = 30
"""An alarm counts for a change up to this many records after it."""

HERE = Where("curve")
"""Place of all events of a curve."""

Alarm = tuple[int, int]
"""First and last step of a match."""

Rule = Callable[[Sequence[Step]], list[Alarm]]


class Curve(NamedTuple):
    """One logged run."""

    id: str
    source: str
    steps: list[Step]
    labels: list[dict[str, Any]]

    @property
    def names(self) -> set[str]:
        """All labels except doubtful ones."""
        return {label["label"] for label in self.labels if label["confidence"] != "doubtful"}

    @property
    def benign(self) -> bool:
        """Whether every alarm on it is a nuisance."""
        return bool(self.names) and self.names <= BENIGN

    @property
    def losses(self) -> list[float]:
        """The logged training losses."""
        return [step.metrics["loss"] for step in self.steps if "loss" in step.metrics]

    @property
    def changeable(self) -> bool:
        """Whether changes can be injected: benign, long enough, and without losses so small that a factor is meaningless."""
        tail = self.losses[-LAST:]
        return self.benign and len(tail) >= 40 and all(math.isfinite(x) and x > 0.02 for x in tail)


def load(folder: Path) -> list[Curve]:
    """All curves of a folder, by name."""
    return [_curve(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def _curve(raw: dict[str, Any]) -> Curve:
    records = raw["records"]
    rows: list[Step] = []
    evals: dict[Any, float] = {}
    for step, value in raw["eval"]:
        evals.setdefault(step, float(value))
    for place, step in enumerate(records["step"]):
        names = [name for name in ("loss", "grad_norm", "learning_rate", "epoch") if name in records and records[name][place] is not None]
        metrics = {name: float(records[name][place]) for name in names}
        if step in evals:
            metrics["eval_loss"] = evals.pop(step)
        rows.append(Step(where=HERE, step=step, metrics=metrics))
    rows += [Step(where=HERE, step=step, metrics={"eval_loss": value}) for step, value in evals.items() if step is not None]
    return Curve(raw["id"], raw["source"], rows, raw["labels"])


def changed(curve: Curve, kind: str, seed: str = "") -> tuple[list[Step], Alarm]:
    """The curve's last records with a change at a seeded place, and the steps from the change to `RANGE` records after it."""
    rows = [step for step in curve.steps if "loss" in step.metrics][-LAST:]
    at = random.Random(curve.id + kind + seed).randrange(len(rows) // 3, len(rows) - 8)
    out = [
        Step(where=HERE, step=row.step, metrics={**row.metrics, "loss": row.metrics["loss"] * _factor(kind, place - at)})
        for place, row in enumerate(rows)
    ]
    return out, (rows[at].step, rows[min(at + RANGE, len(rows) - 1)].step)


def _factor(kind: str, since: int) -> float:
    shape, _, size = kind.partition("_x")
    if since < 0:
        return 1.0
    share = {
        "point": float(since == 0),
        "bump": math.exp(-since / 3) if since < 8 else 0.0,
        "shift": 1.0,
        "ramp": min(1.0, since / 30),
    }[shape]
    return 1 + (float(size) - 1) * share


def rule_of(*detectors: Callable[[], Detector]) -> Rule:
    """Wrap detectors as a function from a series to the step ranges of their matches."""

    def alarms(steps: Sequence[Step]) -> list[Alarm]:
        run = Run()
        alive = [make() for make in detectors]
        found = [match for step in steps for detector in alive for match in detector.feed(step, run)]
        found += [match for detector in alive for match in detector.finish(run)]
        return [match.steps for match in found if match.steps]

    return alarms


class Score(NamedTuple):
    """Ids of benign curves with an alarm, the number of benign curves, and hits and trials by kind of change."""

    nuisance: list[str]
    benign: int
    hits: dict[str, int]
    trials: dict[str, int]

    def percent(self, kind: str) -> float:
        """Share of the changes of a kind that were detected, in percent."""
        return 100 * self.hits[kind] / max(self.trials[kind], 1)

    @property
    def mean(self) -> float:
        """The mean over the kinds, in percent."""
        return sum(map(self.percent, KINDS)) / len(KINDS)

    def line(self) -> str:
        """A table row."""
        share = 100 * len(self.nuisance) / max(self.benign, 1)
        return f"{share:5.1f} | " + " ".join(f"{self.percent(kind):6.1f}" for kind in KINDS)


def overlaps(alarms: Iterable[Alarm], span: Alarm) -> bool:
    """Whether any alarm overlaps the steps of `span`."""
    return any(first <= span[1] and last >= span[0] for first, last in alarms)


Trial = tuple[Curve, str, list[Step], Alarm]


def trials(curves: Sequence[Curve], seeds: Sequence[str] = ("",)) -> list[Trial]:
    """Every change in every changeable curve, shared by all rules."""
    return [(curve, kind, *changed(curve, kind, seed)) for curve in curves if curve.changeable for kind in KINDS for seed in seeds]


def score(rule: Rule, curves: Sequence[Curve], made: Sequence[Trial]) -> Score:
    """Score a rule. Curves with a nuisance alarm get no changes, as the alarm would hit by chance."""
    benign = [curve for curve in curves if curve.benign]
    noisy = {curve.id for curve in benign if rule(curve.steps)}
    hits, count = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for curve, kind, steps, span in made:
        if curve.id not in noisy:
            count[kind] += 1
            hits[kind] += overlaps(rule(steps), span)
    return Score(sorted(noisy), len(benign), hits, count)


def folds(curves: Sequence[Curve], number: int) -> Iterator[tuple[list[Curve], list[Curve]]]:
    """(training curves, test curves) per fold; curves from the same source stay together."""
    sources = sorted({curve.source.split()[0] for curve in curves})
    random.Random(0).shuffle(sources)
    for fold in range(number):
        out = set(sources[fold::number])
        yield [c for c in curves if c.source.split()[0] not in out], [c for c in curves if c.source.split()[0] in out]
