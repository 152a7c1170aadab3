"""What is kept of a run: one small record that travels from the worker, is cached, and becomes rows of the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from doctor.config.options import table
from doctor.core.run import Run
from doctor.diagnosis.pipeline import Analysis
from doctor.errors import NOTHING_TO_READ
from doctor.fleet.attribution import history
from doctor.fleet.scan import fingerprint
from doctor.fleet.scan.discovery import Found, only_logs
from doctor.planner.plan import PreviousAttempt
from doctor.privacy import secrets
from doctor.report.model import Report
from doctor.report.quoting import downsample

Outcome = Literal["analyzed", "unreadable", "too_slow", "too_large", "crashed"]
CURVE_POINTS = 64
FINDINGS = 50
LINE = 500
"""Of a run so many findings are kept, of a quote so many characters."""


class Limits(msgspec.Struct, frozen=True):
    """What one run may cost: seconds of wall time and GiB of resident memory."""

    seconds: float = 120.0
    memory_gib: float = 2.0


class Task(msgspec.Struct, frozen=True):
    """One run to analyze, and how. `report` names the format of the report that is wanted beside the record."""

    found: Found
    limits: Limits
    lang: str = "en"
    report: str | None = None
    previous_attempts: list[PreviousAttempt] = []


class FindingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finding as a row."""

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


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run as a row (docs/scale.md tells the columns). `page` is the rendered report, which goes to a file of its own."""

    path: str
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
    framework: str | None = None
    version: str | None = None
    stage: str | None = None
    finetuning_type: str | None = None
    model: str | None = None
    world_size: int | None = None
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
        """True for a run that failed, has an error, or whose training went wrong; False for one that completed without; None where
        nothing says, and where somebody stopped it."""
        if self.outcome != "analyzed":
            return None
        if self.status == "failed" or any(one.severity == "error" or _ruins(one) for one in self.findings):
            return True
        return False if self.status in ("completed", "ended_early") else None


def _ruins(finding: FindingRecord) -> bool:
    """A root cause of the stability family: the run may end, but what it learned is not worth much."""
    return finding.role == "root" and finding.severity == "warning" and finding.rule.startswith("stability/")


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
"""Facts that say in what surroundings, with which variables and on how much data a run ran."""

_OF_ONE_START = frozenset({"env.MASTER_PORT", "env.MASTER_ADDR", "env.RANK", "env.LOCAL_RANK", "env.NODE_RANK", "env.SLURM_JOB_ID"})
"""Variables that differ from start to start and explain nothing."""


def record_of(found: Found, seen: Analysis) -> RunRecord:
    """The record of an analyzed run."""
    report, run = seen.report, seen.run
    root = fingerprint.root(seen.judged)
    shown = next((one for one in report.findings if root is not None and one.rule == root.finding.rule.id), None)
    loss, evaluated = run.series.get("loss"), run.series.get("eval_loss")
    seconds = max(run.seconds.values, default=0.0)
    view = report.run
    return RunRecord(
        path=secrets.clean(found.path),
        status=view.status,
        healthy=report.healthy,
        cause=report.cause,
        rule=shown.rule if shown else None,
        symptom=shown.symptom if shown else None,
        title=shown.title if shown else None,
        confidence=shown.confidence if shown else None,
        fingerprint=_fingerprint(seen),
        evidence=secrets.clean(fingerprint.evidence(root)[:LINE]) if root else None,
        job=secrets.clean(history.job_name(found.path, run.config, folder=found.paths == [found.path])),
        framework=view.framework,
        version=view.version,
        stage=view.stage,
        finetuning_type=view.finetuning_type,
        model=view.model,
        world_size=view.world_size,
        first_step=view.steps.first,
        last_step=view.steps.last,
        planned_steps=view.steps.planned,
        loss=_finite(loss.values[-1]) if loss and len(loss) else None,
        best_eval_loss=min((one for one in evaluated.values if math.isfinite(one)), default=None) if evaluated else None,
        started=found.ended - seconds if found.ended else None,
        ended=found.ended or None,
        size=found.size,
        files=len(found.files),
        config={key: secrets.plain(value, key) for key, value in sorted(_given(run).items()) if _short(value)},
        environment={key: secrets.plain(value, key) for key, value in sorted(run.facts.items()) if _surrounds(key) and _short(value)},
        curve=_curve(loss),
        patch=[f"{one.key}={one.new}" if one.op == "set" else f"-{one.key}" for one in report.patch.changes] if report.patch else [],
        proposed=sorted({change.key for one in report.findings for remedy in one.remedies for change in remedy.changes}),
        problems=[*found.problems, *(f"{one.path}: {problem}" for one in view.sources for problem in one.problems)][:20],
        findings=_findings(report),
    )


def _surrounds(fact: str) -> bool:
    return fact.startswith(_ENVIRONMENT) and fact not in _OF_ONE_START


def failed_to(found: Found, outcome: Outcome, error: str) -> RunRecord:
    """The record of a run that could not be analyzed."""
    return RunRecord(
        path=secrets.clean(found.path),
        outcome=outcome,
        error=secrets.clean(error)[:LINE],
        job=secrets.clean(history.job_name(found.path, {})),
        ended=found.ended or None,
        size=found.size,
        files=len(found.files),
        problems=found.problems,
    )


def nothing_there(found: Found, exit_code: int) -> bool:
    """Whether this is no run at all: consoles by their names, but nothing in them that a training would write."""
    return exit_code == NOTHING_TO_READ and only_logs(found) and not found.problems


def _given(run: Run) -> dict[str, Any]:
    """What the user gave, where that is known; else every option that can be recovered from what the run wrote.

    A run that ends well leaves more to recover than one that fails early: mixing both would make that difference look guilty.
    """
    own = {key: value for key, value in run.config.items() if run.origin(key) in ("yaml", "command")}
    return own or {key: value for key, value in run.config.items() if key in table()}


def _fingerprint(seen: Analysis) -> str | None:
    """Of failures and warnings; a sound run has none, and neither has one that somebody stopped."""
    return None if seen.report.healthy else fingerprint.fingerprint(seen.judged)


def _findings(report: Report) -> list[FindingRecord]:
    rows = []
    for one in report.findings[:FINDINGS]:
        quote = one.evidence[0] if one.evidence else None
        rows.append(
            FindingRecord(
                rule=one.rule,
                cause=one.cause,
                symptom=one.symptom,
                severity=one.severity,
                role=one.role,
                confidence=one.confidence,
                title=one.title,
                first_step=one.steps[0] if one.steps else None,
                last_step=one.steps[-1] if one.steps else None,
                ranks=one.ranks[:64],
                count=one.count,
                source=quote.source if quote else None,
                line=quote.line if quote else None,
                text=quote.text[:LINE] if quote else "",
            )
        )
    return rows


def _curve(series: Any) -> tuple[list[int], list[float]]:
    """The loss, thinned to what a small picture shows; its finite points only."""
    if series is None:
        return [], []
    steps, values = downsample(series.steps, series.values, CURVE_POINTS)
    points = [(step, value) for step, value in zip(steps, values, strict=True) if isinstance(value, int | float) and math.isfinite(value)]
    return [step for step, _ in points], [float(f"{value:.6g}") for _, value in points]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: Any) -> bool:
    """Values that can be compared between runs: no long texts, no nested settings."""
    if isinstance(value, Mapping) or value is None:
        return False
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) <= 16 and all(isinstance(one, str | int | float | bool) for one in value)
    return not isinstance(value, str) or len(value) <= 200
