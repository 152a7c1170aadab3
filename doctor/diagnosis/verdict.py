"""What may be said of a run follows from what was read of it: no tick without evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from doctor.config.options import table
from doctor.core.run import Run
from doctor.report.model import Status, Verdict
from doctor.rulebook.findings import RankedFinding

_ENDED: tuple[Status, ...] = ("completed", "ended_early", "interrupted", "failed")
"""End states: each of them is something that was read."""
KNOWN_SHARE = 0.5
"""A mapping is a training configuration if at least this share of its top-level keys are LLaMA-Factory options."""


def verdict(kind: Literal["analyze", "check"], status: Status, ranked: Sequence[RankedFinding], run: Run) -> Verdict:
    """The verdict on a run, or on the configuration that `check` was given.

    1. `failed`: the run failed, whether or not a rule knows why.
    2. `unhealthy`: there is a finding above a note, or somebody interrupted the run.
    3. `undecided`: no training step and no end was read; for `check`: what was read is no training configuration.
    4. `healthy`: everything else.
    """
    if status == "failed":
        return "failed"
    if status == "interrupted" or any(ranked_finding.finding.rule.severity != "note" for ranked_finding in ranked):
        return "unhealthy"
    judged = is_training_config(run.config) if kind == "check" else run.last_step is not None or status in _ENDED
    return "healthy" if judged else "undecided"


def is_training_config(config: Mapping[str, Any]) -> bool:
    """Whether a mapping is a LLaMA-Factory configuration, by its top-level keys."""
    known = sum(key in table() for key in config)
    return known > 0 and known >= KNOWN_SHARE * len(config)
