"""What may be said of a run follows from what was read of it: no tick without evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from doctor.config.recognise import shape_of
from doctor.core.run import Run
from doctor.report.model import Status, Verdict
from doctor.rulebook.findings import RankedFinding

_KNOWN: tuple[Status, ...] = ("completed", "ended_early", "running")
"""States that were read: a log that just stops may be of a run that died a moment later."""


def verdict(kind: Literal["analyze", "check"], status: Status, ranked: Sequence[RankedFinding], run: Run) -> Verdict:
    """The verdict on a run, or on the configuration that `check` was given.

    1. `failed`: the run failed, whether or not a rule knows why.
    2. `unhealthy`: there is a finding above a note, or somebody interrupted the run.
    3. `undecided`: no end was read (nor a training that still runs): what came after the last line is not known. For `check`: what was
       read is no training configuration.
    4. `healthy`: everything else.
    """
    if status == "failed":
        return "failed"
    if status == "interrupted" or any(ranked_finding.finding.severity != "note" for ranked_finding in ranked):
        return "unhealthy"
    judged = shape_of(run.config) is not None if kind == "check" else status in _KNOWN
    return "healthy" if judged else "undecided"
