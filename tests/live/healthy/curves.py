"""What the curves are made of: levels, noise, schedules, preference losses."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Metrics = dict[str, float]
Shape = Callable[[random.Random], "Curve"]


class Curve(NamedTuple):
    """The logs of a run: metrics by log, `every` steps apart; the first `history` of them lie before the checkpoint it resumed from."""

    logs: list[Metrics]
    config: dict[str, Any]
    every: int = 1
    history: int = 0


SFT = {"stage": "sft", "finetuning_type": "lora", "learning_rate": 1e-4, "do_train": True}
FULL = {**SFT, "finetuning_type": "full", "learning_rate": 1e-5}
DPO = {**SFT, "stage": "dpo", "learning_rate": 5e-6}
PRETRAINING = {**FULL, "stage": "pt", "learning_rate": 3e-4}


def decay(count: int, start: float, end: float, time: float) -> list[float]:
    """Exponential fall over `time` logs."""
    return [end + (start - end) * math.exp(-log / time) for log in range(count)]


def noisy(dice: random.Random, levels: Iterable[float], sigma: float) -> list[float]:
    """Log-normal noise, as the loss of a batch has it."""
    return [level * math.exp(dice.gauss(0, sigma) - sigma * sigma / 2) for level in levels]


def rates(count: int, peak: float, warmup: int = 10, cycles: int = 1) -> list[float]:
    """Warm-up, then cosine with restarts, as transformers' cosine_with_restarts."""
    out = []
    for log in range(count):
        if log < warmup:
            out.append(peak * log / warmup)
        else:
            out.append(peak * (0.5 + 0.5 * math.cos(math.pi * ((log - warmup) / max(count - warmup, 1) * cycles % 1.0))))
    return out


def curve(
    dice: random.Random,
    losses: Sequence[float],
    config: dict[str, Any],
    *,
    grad: float = 1.0,
    every: int = 1,
    history: int = 0,
    cycles: int = 1,
    **more: Sequence[float],
) -> Curve:
    """Logs with loss, a gradient norm that wanders, and the schedule's learning rate."""
    grads = noisy(dice, [grad] * len(losses), 0.35)
    rate = rates(len(losses), float(config["learning_rate"]), max(1, len(losses) // 20), cycles)
    columns: dict[str, Sequence[float]] = {"loss": losses, "grad_norm": grads, "learning_rate": rate, **more}
    logs = [{name: values[log] for name, values in columns.items()} for log in range(len(losses))]
    return Curve(logs, dict(config), every, history)


def pairs(dice: random.Random, count: int, last_margin: float, spread: float) -> dict[str, list[float]]:
    """Loss, accuracies and margins of a sigmoid preference loss on batches of two pairs."""
    out: dict[str, list[float]] = {"loss": [], "rewards/accuracies": [], "rewards/margins": []}
    for log in range(count):
        margins = [dice.gauss(last_margin * log / count, spread * (0.02 + log / count)) for _ in range(2)]
        out["loss"].append(sum(math.log1p(math.exp(-margin)) for margin in margins) / 2)
        out["rewards/accuracies"].append(sum(margin > 0 for margin in margins) / 2)
        out["rewards/margins"].append(sum(margins) / 2)
    return out
