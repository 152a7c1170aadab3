"""What is kept of a run: a small record that the worker returns, the store caches, and the tables show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from doctor.config.options import table
from doctor.core.run import Run
from doctor.core.series import downsample
from doctor.diagnosis.pipeline import Analysis
from doctor.errors import NOTHING_TO_READ
from doctor.fleet.attribution import history
from doctor.fleet.scan import fingerprint
from doctor.fleet.scan.discovery import FoundRun, only_logs
from doctor.planner.plan import PreviousAttempt
from doctor.privacy import secrets
from doctor.report.model import Report, RunIdentity

Outcome = Literal["analyzed", "unreadable", "too_slow", "too_large", "crashed"]
CURVE_POINTS = 64
"""Points of a stored learning curve."""
MAX_FINDINGS, MAX_QUOTE = 50, 500
"""Findings of a run, and characters of a quote, that are stored."""


class Limits(msgspec.Struct, frozen=True):
    """Limits of one analysis: seconds of wall time and GiB of resident memory."""

    seconds: float = 120.0
    memory_gib: float = 2.0


class ScanTask(msgspec.Struct, frozen=True):
    """A run to analyze, and how. `report` names the renderer of the report that is wanted besides the record."""

    found: FoundRun
    limits: Limits
    lang: str = "en"
    report: str | None = None
    previous_attempts: list[PreviousAttempt] = []


class FindingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A finding as a row."""

    rule: str
    cause: str
    symptom: str
    severity: str
    role: str
    confidence: float
    title: str
    first_step: int | None
    last_step: int | None
    ranks: list[int]
    count: int
    source: str | None
    line: int | None
    text: str


class RunRecord(RunIdentity, frozen=True, kw_only=True):
    """A run as a row (docs/scale.md describes the columns). `page` is the rendered report, which goes to its own file."""

    outcome: Outcome = "analyzed"
    error: str | None = None
    status: str = "unknown"
    healthy: bool | None = None
    cause: str | None = None
    rule: str | None = None
    symptom: str | None = None
    title: str | None = None
    confidence: float | None = None
    fingerprint: str | None = None
    evidence: str | None = None
    job: str = ""
    first_step: int | None = None
    last_step: int | None = None
    planned_steps: int | None = None
    loss: float | None = None
    best_eval_loss: float | None = None
    started: float | None = None
    ended: float | None = None
    size: int = 0
    files: int = 0
    config: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    curve: tuple[list[int], list[float]] = ([], [])
    patch: list[str] = []
    proposed: list[str] = []
    problems: list[str] = []
    findings: list[FindingRecord] = []
    page: str | None = None

    @property
    def failed(self) -> bool | None:
        """True: it failed, has an error, or its training went wrong. False: it completed without any. None: unknown, or somebody
        stopped it."""
        if self.outcome != "analyzed":
            return None
        if self.status == "failed" or any(finding.severity == "error" or _ruins(finding) for finding in self.findings):
            return True
        return False if self.status in ("completed", "ended_early") else None


def _ruins(finding: FindingRecord) -> bool:
    """A root cause of the stability family: the run may complete, but the model is bad. After overfitting an earlier checkpoint is good."""
    root = finding.role == "root" and finding.severity == "warning"
    return root and finding.rule.startswith("stability/") and finding.symptom != "overfitting"


_ENVIRONMENT = (
    "versions.",
    "gpu.",
    "world_size",
    "examples.",
    "device",
    "attention",
    "compute_dtype",
    "model.params",
    "deepspeed.",
    "env.",
    "command.",
    "launcher",
)
"""Facts about a run's environment, variables and amount of data."""

_OF_ONE_START = frozenset({"env.MASTER_PORT", "env.MASTER_ADDR", "env.RANK", "env.LOCAL_RANK", "env.NODE_RANK", "env.SLURM_JOB_ID"})
"""Variables that differ with every start and explain nothing."""


def record_of(found: FoundRun, seen: Analysis) -> RunRecord:
    """The record of an analyzed run."""
    report, run = seen.report, seen.run
    root = fingerprint.root(seen.judged)
    shown = next((finding for finding in report.findings if root is not None and finding.rule == root.finding.rule.id), None)
    loss, evaluated = run.series.get("loss"), run.series.get("eval_loss")
    seconds = max(run.seconds.values, default=0.0)
    view = report.run
    return RunRecord(
        **{**view.identity(), "path": secrets.clean(found.path)},
        status=view.status,
        healthy=report.healthy,
        cause=report.cause,
        rule=shown.rule if shown else None,
        symptom=shown.symptom if shown else None,
        title=shown.title if shown else None,
        confidence=shown.confidence if shown else None,
        fingerprint=_fingerprint(seen),
        evidence=secrets.clean(fingerprint.evidence(root)[:MAX_QUOTE]) if root else None,
        job=secrets.clean(history.job_name(found.path, run.config, folder=found.paths == [found.path])),
        first_step=view.steps.first,
        last_step=view.steps.last,
        planned_steps=view.steps.planned,
        loss=_finite(loss.values[-1]) if loss and len(loss) else None,
        best_eval_loss=min((value for value in evaluated.values if math.isfinite(value)), default=None) if evaluated else None,
        started=found.ended - seconds if found.ended else None,
        ended=found.ended or None,
        size=found.size,
        files=len(found.files),
        config={key: secrets.plain(value, key) for key, value in sorted(_given(run).items()) if _short(value)},
        environment={key: secrets.plain(value, key) for key, value in sorted(run.facts.items()) if _is_environment(key) and _short(value)},
        curve=_curve(loss),
        patch=[f"{change.key}={change.new}" if change.op == "set" else f"-{change.key}" for change in report.patch.changes]
        if report.patch
        else [],
        proposed=sorted({change.key for finding in report.findings for remedy in finding.remedies for change in remedy.changes}),
        problems=[*found.problems, *(f"{source.path}: {problem}" for source in view.sources for problem in source.problems)][:20],
        findings=_findings(report),
    )


def _is_environment(fact: str) -> bool:
    return fact.startswith(_ENVIRONMENT) and fact not in _OF_ONE_START


def failed_to(found: FoundRun, outcome: Outcome, error: str) -> RunRecord:
    """The record of a run that could not be analyzed."""
    return RunRecord(
        path=secrets.clean(found.path),
        outcome=outcome,
        error=secrets.clean(error)[:MAX_QUOTE],
        job=secrets.clean(history.job_name(found.path, {})),
        ended=found.ended or None,
        size=found.size,
        files=len(found.files),
        problems=found.problems,
    )


def nothing_there(found: FoundRun, exit_code: int) -> bool:
    """Whether this is no run at all: console logs by name, but without anything that a training writes."""
    return exit_code == NOTHING_TO_READ and only_logs(found) and not found.problems


def _given(run: Run) -> dict[str, Any]:
    """The options the user gave, if known; else every option that can be recovered from what the run wrote.

    Never both: a run that ends well leaves more to recover than one that fails early, and that difference would seem to be the cause.
    """
    own = {key: value for key, value in run.config.items() if run.origin(key) in ("yaml", "command")}
    return own or {key: value for key, value in run.config.items() if key in table()}


def _fingerprint(seen: Analysis) -> str | None:
    """For failures and warnings; None for a healthy run."""
    return None if seen.report.healthy else fingerprint.fingerprint(seen.judged)


def _findings(report: Report) -> list[FindingRecord]:
    rows = []
    for finding in report.findings[:MAX_FINDINGS]:
        quote = finding.evidence[0] if finding.evidence else None
        rows.append(
            FindingRecord(
                rule=finding.rule,
                cause=finding.cause or "unknown",
                symptom=finding.symptom,
                severity=finding.severity,
                role=finding.role,
                confidence=finding.confidence,
                title=finding.title,
                first_step=finding.steps[0] if finding.steps else None,
                last_step=finding.steps[-1] if finding.steps else None,
                ranks=finding.ranks[:64],
                count=finding.count,
                source=quote.source if quote else None,
                line=quote.line if quote else None,
                text=quote.text[:MAX_QUOTE] if quote else "",
            )
        )
    return rows


def _curve(series: Any) -> tuple[list[int], list[float]]:
    """The loss, downsampled to CURVE_POINTS; finite points only."""
    if series is None:
        return [], []
    steps, values = downsample(series.steps, series.values, CURVE_POINTS)
    points = [(step, value) for step, value in zip(steps, values, strict=True) if isinstance(value, int | float) and math.isfinite(value)]
    return [step for step, _ in points], [float(f"{value:.6g}") for _, value in points]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: Any) -> bool:
    """Whether a value can be compared between runs: no long text, no nested settings."""
    if isinstance(value, Mapping) or value is None:
        return False
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) <= 16 and all(isinstance(item, str | int | float | bool) for item in value)
    return not isinstance(value, str) or len(value) <= 200
