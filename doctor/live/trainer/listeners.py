"""Who sees the journal's lines while they are written: the monitor (console, notifications, trackers), TensorBoard; the stop judge."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doctor.live.trainer.imports import lend_msgspec
from doctor.live.trainer.recorder import log_stderr
from doctor.live.trainer.trackers import Trackers
from doctor.live.trainer.values import to_count

Line = Callable[[bytes], None]
Message = Callable[[str], None]


def listeners(args: Any, trainer: Callable[[], Any], folder: Path | None, trackers: Trackers | None, *, warn: bool) -> list[Line]:
    """Functions for the recorder's thread, each called with every line; `trainer()` gives the trainer once it is known."""
    lines: list[Line] = []
    messages: list[Message] = [lambda text: log_stderr(f"{text} (lfdoctor analyze)")] if warn else []
    if "tensorboard" in (getattr(args, "report_to", None) or ()):
        from doctor.live.trainer.tensorboard import Board, writer_of

        board = Board(lambda: writer_of(trainer()))
        lines.append(board.line)
        messages.append(board.finding)
    if trackers is not None:
        messages.append(trackers.tell)
    urls = os.environ.get("LFDOCTOR_NOTIFY", "").split() if warn else []
    if messages or urls:
        lines += _monitor(messages, urls, folder)
    return lines


def _monitor(messages: list[Message], urls: list[str], folder: Path | None) -> list[Line]:
    """The monitor; none where a package it needs (msgspec) is missing or a plugin's rule is broken."""
    try:
        lend_msgspec()
        from doctor.live.trainer.monitor import Monitor

        if urls:
            from doctor.live.watch.alerts import Notifier

            messages.append(Notifier(urls, f"lfdoctor: {folder or Path.cwd()}", complain=log_stderr).tell)
    except Exception as error:
        log_stderr(f"no warnings here: {error}")
        return []

    def tell(text: str) -> None:
        for message in messages:
            message(text)

    return [Monitor(tell).line]


def stop_judge(args: Any, trainer: Any, config: dict[str, Any]) -> Any:
    """A StopJudge where stopping is safe, else None.

    Safe means one process, or a transformers Trainer: all its ranks log the same values and so stop at the same step.
    `config` holds the effective options (they say whether the data are shuffled).
    """
    try:
        lend_msgspec()
        from doctor.live.trainer.stop_judge import StopJudge

        alone = to_count(getattr(args, "world_size", 1)) <= 1
        return StopJudge(config=config) if alone or trainer is not None else None
    except Exception as error:  # a missing package, a plugin's broken rule
        log_stderr(f"cannot stop a diverging run by itself here: {error}")
        return None


def saves_at_stop(args: Any, metrics: dict[str, float]) -> bool:
    """Whether to save a checkpoint before the doctor stops a training: its loss is a number, it saves checkpoints, and deletes none.

    A healed training saves none: it goes on from an older one.
    """
    strategy = getattr(args, "save_strategy", "no")
    saves = str(getattr(strategy, "value", strategy)) != "no" and not getattr(args, "save_total_limit", None)
    return saves and os.environ.get("LFDOCTOR_SAVE_AT_STOP") != "0" and math.isfinite(metrics.get("loss", math.nan))
