"""Compare our loss detectors with public spike rules on labelled curves; prints a Markdown table.

    python benchmarks/curves.py FOLDER [--seeds 3]

Columns: share of benign curves with an alarm (nuisance), and share of injected changes detected within 30 records, without curves that
have a nuisance alarm. Ours are loss_spike and divergence with the shipped rules' settings. The others are reimplemented from their
descriptions, with their published defaults; each docstring names the source.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import curve_data
from curve_data import Alarm, Rule

from doctor.core.events import Step
from doctor.detectors.divergence import Divergence
from doctor.detectors.loss_spike import LossSpike
from doctor.rulebook import loader

Places = Callable[[Sequence[float]], Iterator[int]]
"""From losses to indices of alarms."""


def llm_foundry(losses: Sequence[float]) -> Iterator[int]:
    """MosaicML llm-foundry KillLossSpike: over twice the mean of the window (100, or 5 % of the run) for more than 4 records."""
    window: deque[float] = deque(maxlen=max(100, round(len(losses) * 0.05)))
    high = 0
    for place, loss in enumerate(losses):
        if len(window) == window.maxlen:
            high = high + 1 if loss >= 2 * sum(window) / len(window) else 0
            if high > 4:
                yield place
        window.append(loss)


def lightning(losses: Sequence[float]) -> Iterator[int]:
    """PyTorch Lightning SpikeDetection: worse than the last and off the mean of 10 by twice that mean, or not finite."""
    window: deque[float] = deque(maxlen=10)
    last = 0.0
    for place, loss in enumerate(losses):
        if window and (not math.isfinite(loss) or (loss > last and abs(loss - sum(window) / len(window)) >= 2 * sum(window) / len(window))):
            yield place
        else:
            window.append(loss)
            last = loss


def z_score(losses: Sequence[float], *, window: int, limit: float, arm: int, both: bool = False) -> Iterator[int]:
    """Off the mean of the window by `limit` standard deviations, once `arm` records are known."""
    held: deque[float] = deque()
    total = squares = 0.0
    for place, loss in enumerate(losses):
        number = len(held)
        if number >= max(arm, 2):
            mean = total / number
            spread = math.sqrt(max(0.0, (squares - number * mean * mean) / (number - 1)))
            away = abs(loss - mean) if both else loss - mean
            if spread > 1e-9 and away > limit * spread:
                yield place
        if number == window:
            old = held.popleft()
            total, squares = total - old, squares - old * old
        held.append(loss)
        total, squares = total + loss, squares + loss * loss


def megatron(losses: Sequence[float]) -> Iterator[int]:
    """Megatron-LM rerun state machine: ten times the largest of the first 100."""
    top = max(losses[:100], default=math.inf)
    return (place for place, loss in enumerate(losses) if place >= 100 and loss >= 10 * top)


def ratio_to_last(losses: Sequence[float]) -> Iterator[int]:
    """peft-doctor: four times the record before."""
    return (place for place in range(1, len(losses)) if losses[place - 1] > 0 and losses[place] / losses[place - 1] >= 4)


def cusum(losses: Sequence[float]) -> Iterator[int]:
    """trainscope: two-sided CUSUM on (x - median)/MAD of the last 200, slack 1, decision 6, from 30 records on; upward alarms."""
    window: deque[float] = deque(maxlen=200)
    upward = 0.0
    for place, loss in enumerate(losses):
        if len(window) >= 30:
            middle = _median(window)
            spread = 1.4826 * _median([abs(x - middle) for x in window]) or 1e-9
            upward = max(0.0, upward + (loss - middle) / spread - 1.0)
            if upward > 6:
                yield place
                upward = 0.0
        window.append(loss)


def robust_log(losses: Sequence[float]) -> Iterator[int]:
    """A public watcher: robust z over 8 of log loss against the last 100."""
    window: deque[float] = deque(maxlen=100)
    for place, loss in enumerate(losses):
        level = math.log(max(loss, 1e-12))
        if len(window) == 100:
            middle = _median(window)
            if 0.6745 * (level - middle) / (_median([abs(x - middle) for x in window]) + 1e-12) > 8:
                yield place
        window.append(level)


def _median(values: Sequence[float] | deque[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


PUBLIC: dict[str, Places] = {
    "llm-foundry KillLossSpike": llm_foundry,
    "Lightning SpikeDetection": lightning,
    "OLMo-core 6 sigma / 128": partial(z_score, window=128, limit=6, arm=64),
    "OLMo 2 score 7 sigma / 1000": partial(z_score, window=1000, limit=7, arm=100, both=True),
    "W&B automation z 3 / 30": partial(z_score, window=30, limit=3, arm=30),
    "llm.c z 3 / 128": partial(z_score, window=128, limit=3, arm=128),
    "Megatron-LM 10x max": megatron,
    "peft-doctor x4": ratio_to_last,
    "trainscope CUSUM": cusum,
    "robust z 8 of log loss / 100": robust_log,
}
"""Name in the table -> rule."""


def on_steps(places: Places) -> Rule:
    """Adapt a rule on losses to steps. Non-finite losses are dropped, as all of these rules expect."""

    def alarms(steps: Sequence[Step]) -> list[Alarm]:
        logged = [step for step in steps if math.isfinite(step.metrics.get("loss", math.nan))]
        return [(logged[place].step, logged[place].step) for place in places([step.metrics["loss"] for step in logged])]

    return alarms


def ours() -> Rule:
    """Our detectors with the shipped settings."""
    book = loader.load()
    spike, level = book["stability/loss-spike"].params, book["stability/divergence"].params
    return curve_data.rule_of(partial(LossSpike, **spike), partial(Divergence, **level))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    curves = curve_data.load(given.folder)
    made = curve_data.trials(curves, [str(seed or "") for seed in range(given.seeds)])
    print(f"{sum(curve.benign for curve in curves)} benign curves, {len(made)} changes\n")
    print("| rule | nuisance % | " + " | ".join(curve_data.KINDS) + " |\n|---|" + "---|" * (len(curve_data.KINDS) + 1))
    for name, rule in {"lfdoctor": ours(), **{name: on_steps(places) for name, places in PUBLIC.items()}}.items():
        score = curve_data.score(rule, curves, made)
        share = 100 * len(score.nuisance) / max(score.benign, 1)
        print(f"| {name} | {share:.1f} | " + " | ".join(f"{score.percent(kind):.0f}" for kind in curve_data.KINDS) + " |", flush=True)


if __name__ == "__main__":
    main()
