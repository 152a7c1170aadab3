"""How a run ended, as far as anything it wrote says so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from doctor.config.values import as_float
from doctor.core.events import MAX_INTEGER, ProcessEnd
from doctor.core.run import Run
from doctor.report.model import Status
from doctor.rulebook.findings import Finding, RankedFinding

ENDS_A_RUN = {"out_of_memory", "stall", "killed", "crash", "config", "data", "environment"}
"""Symptoms whose errors stop a run, as an exception does; a loss that diverges does not."""
_STOP_SIGNALS = (2, 15)
"""SIGINT and SIGTERM: somebody asked the run to stop."""
_STOP_CODES = (-2, -15, 130, 143)
"""Exit codes that stand for those signals (negative: subprocess; 128 + n: the shell)."""
_ECHOES = {"KeyboardInterrupt", "SystemExit", "SignalException", "ChildFailedError", "CalledProcessError"}
"""Exceptions of a run that was stopped, and of the launcher that stopped with it."""
_WANDB_LOG = "debug.log"
_EPOCHS_DONE = 0.99
"""Share of the planned epochs that counts as all of them: the epoch is logged with two digits, and the last batch may be short."""


def run_status(run: Run, ranked: Sequence[RankedFinding], *, exact_steps: bool = False) -> Status:
    """How the run ended. A log that just stops says nothing: `unknown`. An exception after the training completed does not undo it.

    `exact_steps`: the last step was printed, not worked out from the logging interval (which miscounts a resumed run).
    """
    errors = [ranked_finding.finding for ranked_finding in ranked if ranked_finding.finding.severity == "error"]
    fatal = [ranked_finding for ranked_finding in errors if explains_an_end(ranked_finding)]
    ends = [end for end in run.ends if (end.signal or end.code) and not _told_after_the_end(end, run)]
    interrupted = "KeyboardInterrupt" in run.exceptions or any(_asked_to_stop(end) for end in ends if not _stopped_by_launcher(end, ends))
    others = [
        ranked_finding
        for ranked_finding in fatal
        if ranked_finding.rule.symptom != "killed" and ranked_finding.first.facts.get("exception") != "KeyboardInterrupt"
    ]
    interrupted = interrupted or _cancelled(run, ranked)
    planned = planned_steps(run)
    if run.completed and not ends:
        if _closed_after_the_end(run):
            return "unknown"
        return "ended_early" if _ended_early(run, exact_steps) else "completed"
    if interrupted and not others:
        return "interrupted"
    if fatal or ends:
        return "failed"
    if planned is not None and run.last_step is not None and run.last_step >= planned:
        return "completed"
    if run.facts.get("run.running") is True:
        return "running"
    return "failed" if run.exceptions else "unknown"


def explains_an_end(finding: Finding) -> bool:
    """Whether a finding tells why a run ended."""
    return finding.rule.symptom in ENDS_A_RUN or "exception" in finding.first.facts


def planned_steps(run: Run) -> int | None:
    """The number of optimizer steps that the run planned; None if nothing says it."""
    steps = whole(run.facts.get("steps.planned")) or whole(run.config.get("max_steps"))
    return steps if steps and steps > 0 else None


def _ended_early(run: Run, exact_steps: bool) -> bool:
    """Whether a run that closed normally stopped before its last step: neither its steps nor its epochs were done.

    Steps are only seen where they are logged, so the last logging interval counts as done. Steps that are not exact prove nothing alone.
    """
    planned, last = planned_steps(run), run.last_step
    if planned is None or last is None or last + _logging_interval(run) >= planned:
        return False
    share = _share_of_epochs(run)
    return exact_steps if share is None else share < _EPOCHS_DONE


def _share_of_epochs(run: Run) -> float | None:
    """The last epoch that was logged over the planned ones; None if either is unknown, or if the steps are what is planned."""
    epochs = run.series.get("epoch")
    planned = positive(run.facts.get("epochs.planned")) or positive(run.config.get("num_train_epochs"))
    by_steps = (whole(run.config.get("max_steps")) or 0) > 0
    return max(epochs.values) / planned if epochs and planned and not by_steps else None


def _logging_interval(run: Run) -> int:
    """Steps between two logged steps: the config's `logging_steps`, or the largest gap that was seen."""
    given = whole(run.config.get("logging_steps"))
    series = run.series.get("loss")
    steps = series.steps if series else []
    gaps = [later - earlier for earlier, later in pairwise(steps) if later > earlier]
    return max([given or 1, steps[0] if len(steps) == 1 else 1, *gaps])


def _closed_after_the_end(run: Run) -> bool:
    """Whether torchrun ended its processes after the training: it does so only where one of them failed, say in the evaluation."""
    closed, completed = (run.fact_where.get(name) for name in ("launcher.closed_workers", "run.completed"))
    if closed is None or completed is None or closed.file != completed.file:
        return False
    return (closed.line or 0) > (completed.line or 0)


def _told_after_the_end(end: ProcessEnd, run: Run) -> bool:
    """Whether W&B's own log gives the exit code of a finished training without an exception: that of a notebook or sweep around it."""
    return run.completed and not run.exceptions and PurePath(end.where.file).name == _WANDB_LOG


def _cancelled(run: Run, ranked: Sequence[RankedFinding]) -> bool:
    """Whether the scheduler, a user or a closed terminal ended a run that had not failed. A node that failed is a failure."""
    stops = [one.finding.first.facts for one in ranked if one.finding.rule.cause == "stopped_from_outside" and one.role == "root"]
    raised = {name.rpartition(".")[2] for name in run.exceptions}
    return bool(stops) and raised <= _ECHOES and not any("node" in str(stop.get("reason")).lower() for stop in stops)


def _asked_to_stop(end: ProcessEnd) -> bool:
    return end.signal in _STOP_SIGNALS or end.code in _STOP_CODES


def _stopped_by_launcher(end: ProcessEnd, ends: Sequence[ProcessEnd]) -> bool:
    """Whether torchrun ended this rank because another one had failed first: then nobody asked the run to stop."""
    first = [other for other in ends if other.reporter == end.reporter and other.first]
    return bool(first) and not end.first and not any(map(_asked_to_stop, first))


def whole(value: Any) -> int | None:
    """An int that is no flag and that a run can count to; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_INTEGER else None


def positive(value: Any) -> float | None:
    """A positive number; None for anything else."""
    known = as_float(value, 0.0) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    return known if known > 0 else None
