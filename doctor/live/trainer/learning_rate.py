"""Gives a resumed training the learning rate of its config (`lfdoctor run --heal` lowers it after a divergence)."""

from __future__ import annotations

from typing import Any


def set_learning_rate(args: Any, optimizer: Any, scheduler: Any) -> None:
    """Scale optimizer and scheduler, as loaded from a checkpoint, to `args.learning_rate`; the position in the schedule stays.

    Every LambdaLR multiplies base rates by a factor; the first base rate is `learning_rate` (transformers, `create_scheduler`).
    """
    before = scheduler.base_lrs[0]
    factor = float(args.learning_rate) / before
    scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    for group in optimizer.param_groups:
        group["lr"] *= factor
        group["initial_lr"] = group.get("initial_lr", before) * factor
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
