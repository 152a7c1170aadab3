"""Numbers out of other people's objects: trainer states and logged metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_HISTORY = 500
"""Logs from before the checkpoint that a resumed training repeats in its journal; the longest window of a detector is 200."""
_MAX_INT = 1 << 60
"""Above any real counter; keeps damaged states out of the journal."""


def to_count(value: Any) -> int:
    """`value` if it is a plausible count, else 0."""
    return value if type(value) is int and 0 <= value < _MAX_INT else 0


def to_float(value: Any) -> float | None:
    """A logged number, None for anything else. Tensors count as anything else: reading one could wait for the GPU."""
    kind = type(value)
    if kind is float or kind is int:
        return float(value)
    if kind.__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        item = value.item()
        return float(item) if isinstance(item, (int, float)) else None
    return None


def to_metrics(logs: Any) -> dict[str, float]:
    """The numbers of a trainer's log; its `step` is no metric."""
    return {name: number for name, value in logs.items() if name != "step" and (number := to_float(value)) is not None}


def is_main_process(state: Any) -> bool:
    """Whether this process is the one that logs; True where the state does not say."""
    return bool(getattr(state, "is_world_process_zero", True))


def planned_steps(state: Any) -> int:
    """Planned number of steps; `num_training_steps` is the name in LLaMA-Factory's v1 trainer. 0 if unknown."""
    return to_count(getattr(state, "max_steps", None) or getattr(state, "num_training_steps", 0))


def earlier_logs(state: Any) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and metrics of the last logs that a resumed training brings along; nothing of one that begins."""
    begun = to_count(getattr(state, "global_step", 0))
    for log in (getattr(state, "log_history", None) or [])[-MAX_HISTORY:] if begun else ():
        step, metrics = to_count(log.get("step")), to_metrics(log)
        if 0 < step <= begun and metrics:
            yield step, metrics
