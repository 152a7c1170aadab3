"""Our figures and findings under `lfdoctor/` in the TensorBoard log that the training writes anyway."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

OURS = ("step_seconds", "data_wait_seconds", "allocated_gib", "reserved_gib", "inactive_split_gib", "alloc_retries", "alloc_failures")
"""Step metrics that the trainer does not log itself."""
SAMPLED = (".used_gib", ".util_percent", ".power_watts", ".temperature_c", ".throttled", "rss_gib", "available_gib", "free_gib")
"""Endings of the machine metrics worth a curve; totals and limits are constants."""


class Board:
    """Writes scalars and findings on the recorder's thread. `writer()` gives the SummaryWriter, None before there is one."""

    def __init__(self, writer: Callable[[], Any]) -> None:
        self._writer = writer
        self._step = 0

    def line(self, raw: bytes) -> None:
        """Add our scalars of one journal line."""
        writer = self._writer()
        event = json.loads(raw)
        metrics = event.get("metrics")
        if writer is None or not isinstance(metrics, dict):
            return
        if event["type"] == "Step":
            self._step = event["step"]
            wanted = {name: metrics[name] for name in OURS if name in metrics}
        else:
            wanted = {name: value for name, value in metrics.items() if name.endswith(SAMPLED)}
        for name, value in wanted.items():
            if isinstance(value, int | float):
                writer.add_scalar(f"lfdoctor/{name}", value, self._step)

    def finding(self, text: str) -> None:
        """Add a finding as text at the current step."""
        writer = self._writer()
        if writer is not None:
            writer.add_text("lfdoctor/findings", text, self._step)
            writer.flush()


def writer_of(trainer: Any) -> Any:
    """The SummaryWriter of the trainer's TensorBoard callback, None if there is none (yet)."""
    for callback in getattr(getattr(trainer, "callback_handler", None), "callbacks", ()):
        writer = getattr(callback, "tb_writer", None)
        if writer is not None:
            return writer
    return None
