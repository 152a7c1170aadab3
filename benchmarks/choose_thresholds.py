"""Choose the settings of loss_spike and divergence on labelled curves and cross-validate the choice.

    python benchmarks/choose_thresholds.py FOLDER [--seeds 3] [--folds 5]

Every setting of both grids runs over all curves; pairs of settings are scored from these results. The objective is the mean share of
changes detected minus `PENALTY` points per percent of benign curves with an alarm. Of all pairs within `CLOSE` points of the best, the
most cautious wins. Curves from the same source stay in the same fold.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import curve_data
from curve_data import KINDS, Curve, Trial

from doctor.detectors.base import Detector
from doctor.detectors.divergence import Divergence
from doctor.detectors.loss_spike import LossSpike

PENALTY = 4.0
"""Points subtracted per percent of benign curves with an alarm; a judgement, so that an alarm costs more than a missed change."""

CLOSE = 1.0
"""Points within which settings count as equally good; a judgement."""

SPIKE: dict[str, list[Any]] = {"window": [7, 9], "noise": [100, 200], "z": [4.0, 4.25, 4.5, 5.0], "ratio": [1.4], "repeat": [1.3, 1.5]}
"""Grid of loss_spike settings."""

SPIKE_FIXED: dict[str, Any] = {"arm": 12, "rise": 0.05, "grad_ratio": 3.0, "early_ratio": 1.5}
"""loss_spike settings that are not searched."""

LEVEL: dict[str, list[Any]] = {"hold": [9, 11], "z": [6.0, 7.0], "lift": [3.0, 4.0], "ratio": [1.3]}
"""Grid of divergence settings."""

LEVEL_FIXED: dict[str, Any] = {"best": 25, "noise": 200, "short_ratio": 1.5}
"""divergence settings that are not searched."""


class Outcome(NamedTuple):
    """Result of a setting of a detector: benign curves with an alarm, trials (by number) with a hit."""

    setting: dict[str, Any]
    noisy: frozenset[str]
    hits: frozenset[int]


def grid(choices: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of the choices."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def outcome(setting: dict[str, Any], make: Callable[[], Detector], curves: Sequence[Curve], made: Sequence[Trial]) -> Outcome:
    """Run a detector over every curve and every trial."""
    rule = curve_data.rule_of(make)
    noisy = frozenset(curve.id for curve in curves if curve.benign and rule(curve.steps))
    hits = frozenset(number for number, (_, _, steps, span) in enumerate(made) if curve_data.overlaps(rule(steps), span))
    return Outcome(setting, noisy, hits)


def combined(spike: Outcome, level: Outcome, curves: Sequence[Curve], made: Sequence[Trial]) -> curve_data.Score:
    """The score of both detectors together on these curves."""
    noisy = {curve.id for curve in curves if curve.id in spike.noisy or curve.id in level.noisy}
    inside = {curve.id for curve in curves} - noisy
    hits, count = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for number, (curve, kind, _, _) in enumerate(made):
        if curve.id in inside:
            count[kind] += 1
            hits[kind] += number in spike.hits or number in level.hits
    return curve_data.Score(sorted(noisy), sum(curve.benign for curve in curves), hits, count)


def worth(score: curve_data.Score) -> float:
    """The objective, in points."""
    points: float = score.mean - PENALTY * 100 * len(score.nuisance) / max(score.benign, 1)
    return points


def caution(pair: tuple[Outcome, Outcome]) -> tuple[Any, ...]:
    """Sort key: higher thresholds and longer windows first."""
    spike, level = pair[0].setting, pair[1].setting
    return (spike["z"], level["z"], spike["noise"], spike["repeat"], level["lift"])


def main() -> None:
    """Print the settings chosen on all curves, and the held-out score of the choice made without each fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    curves = curve_data.load(given.folder)
    made = curve_data.trials(curves, [str(seed or "") for seed in range(given.seeds)])
    spikes = [outcome(s, partial(LossSpike, **s, **SPIKE_FIXED, z_witness=s["z"] - 1), curves, made) for s in grid(SPIKE)]
    levels = [outcome(s, partial(Divergence, **s, **LEVEL_FIXED), curves, made) for s in grid(LEVEL)]
    pairs = list(itertools.product(spikes, levels))

    def choose(some: Sequence[Curve]) -> tuple[Outcome, Outcome]:
        scored = [(worth(combined(*pair, some, made)), pair) for pair in pairs]
        best = max(points for points, _ in scored)
        return max((pair for points, pair in scored if points >= best - CLOSE), key=caution)

    print("nuisance % | " + " ".join(KINDS))
    tested = []
    for number, (learn, test) in enumerate(curve_data.folds(curves, given.folds)):
        pair = choose(learn)
        tested.append(combined(pair[0], pair[1], test, made))
        print(f"fold {number}: {tested[-1].line()} | {pair[0].setting} {pair[1].setting}")
    ids = [name for score in tested for name in score.nuisance]
    total = curve_data.Score(
        ids,
        sum(score.benign for score in tested),
        {kind: sum(score.hits[kind] for score in tested) for kind in KINDS},
        {kind: sum(score.trials[kind] for score in tested) for kind in KINDS},
    )
    print(f"held out: {total.line()} | {ids}")
    pair = choose(curves)
    final = combined(pair[0], pair[1], curves, made)
    print(f"chosen on all: {final.line()} | {final.nuisance}")
    print(f"  loss_spike: {pair[0].setting}\n  divergence: {pair[1].setting}")


if __name__ == "__main__":
    main()
