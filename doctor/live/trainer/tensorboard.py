"""Our own figures beside the trainer's, in the TensorBoard log that the training writes anyway: scalars and findings under `lfdoctor/`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

OURS = ("step_seconds", "data_wait_seconds", "allocated_gib", "reserved_gib", "inactive_split_gib", "alloc_retries", "alloc_failures")
"""Of a step; its other figures the trainer logs itself."""
SAMPLED = (".used_gib", ".util_percent", ".power_watts", ".temperature_c", ".throttled", "rss_gib", "available_gib", "free_gib")


class Board:
    """Hears the journal's lines and the findings, on the recorder's thread. `writer` gives the SummaryWriter, once there is one."""

    def __init__(self, writer: Callable[[], Any]) -> None:
        self._writer = writer
        self._step = 0

    def line(self, raw: bytes) -> None:
        """The figures of one line that are ours."""
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
        """A finding as text, at the step where it was found."""
        writer = self._writer()
        if writer is not None:
            writer.add_text("lfdoctor/findings", text, self._step)
            writer.flush()


def writer_of(trainer: Any) -> Any:
    """The SummaryWriter of the trainer's TensorBoard callback, None where it has none (yet)."""
    for callback in getattr(getattr(trainer, "callback_handler", None), "callbacks", ()):
        writer = getattr(callback, "tb_writer", None)
        if writer is not None:
            return writer
    return None
