"""The optimizer steps one of which an exception ended, known only where the logged steps leave few of them."""

from __future__ import annotations

from doctor.core.run import Run
from doctor.diagnosis.unlisted.last_events import LastEvents

MOST_STEPS = 11
"""The samples of more steps are too many to look through: records of ten steps, and one step of another process."""


def failed_steps(run: Run, seen: LastEvents) -> tuple[int, int] | None:
    """The first and the last step that can have failed, after the last one that was logged; None where that is in doubt.

    A process of several may have been stopped before it wrote its last record, while the one that failed was a step further; a killed
    process without a traceback may lose any number of records.
    """
    logged = run.series["loss"].steps if "loss" in run.series else []
    world = run.facts.get("world_size")
    if len(logged) < 2 or not isinstance(world, int) or len(run.attempts) > 1 or run.completed:
        return None
    if not (seen.exact_steps and seen.tracebacks) or run.last_step is None:
        return None
    first = max(logged[-1], run.last_step) + 1
    last = logged[-1] + (logged[-1] - logged[-2]) + int(world > 1)
    return (first, last) if first <= last < first + MOST_STEPS else None


def written(steps: tuple[int, int]) -> str:
    """`120` or `111-120`, as `lfdoctor data --step` takes it."""
    return str(steps[0]) if steps[0] == steps[1] else f"{steps[0]}-{steps[1]}"
