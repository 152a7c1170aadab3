"""The optimizer step that an exception ended, known only where every step before it was logged by the process that failed."""

from __future__ import annotations

from doctor.core.run import Run
from doctor.diagnosis.unlisted.last_events import LastEvents


def failed_step(run: Run, seen: LastEvents) -> int | None:
    """The step after the last logged one, if one process trained once and logs every step; None where that is in doubt.

    Of several processes another one may have failed, and what the first had still to write is lost; a killed process loses it too.
    """
    logged = run.series["loss"].steps if "loss" in run.series else []
    each = len(logged) > 1 and logged[-1] == logged[-2] + 1 == run.last_step
    once = len(run.attempts) <= 1 and run.facts.get("world_size") == 1 and not run.completed
    return logged[-1] + 1 if each and once and seen.exact_steps and seen.tracebacks else None
