"""The report as plain frozen data, JSON-able: format 1 (keys may be added, never renamed)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.privacy import secrets
from doctor.report import outputs
from doctor.report.curves import Curve
from doctor.report.time_spent import TimeView
from doctor.rulebook.findings import Samples
from doctor.rulebook.model import Section

FORMAT = 1
"""Version of the JSON format; a reader takes its own and earlier ones."""
Status = Literal["completed", "ended_early", "failed", "interrupted", "running", "unknown"]
"""How a run ended. `ended_early`: it saved and closed as after a normal end, before its planned last step."""
Verdict = Literal["failed", "unhealthy", "healthy", "undecided"]
"""`failed`: the run failed. `unhealthy`: a finding above a note, or interrupted. `undecided`: nothing that was read allows a verdict."""


class ToolView(msgspec.Struct, frozen=True):
    """The program that wrote the report."""

    name: str
    version: str


class SourceView(msgspec.Struct, frozen=True):
    """One file that was read; `problems` say what could not be read in it."""

    path: str
    kind: str
    bytes: int
    records: int
    problems: list[str] = []


class SkippedView(msgspec.Struct, frozen=True):
    """Files that were not opened: `reason` (weights, archive, data set, ...), how many, and the first of them."""

    reason: str
    count: int
    examples: list[str]


class StepsView(msgspec.Struct, frozen=True):
    """Optimizer steps as the run counts them."""

    first: int | None = None
    last: int | None = None
    planned: int | None = None


class VitalsView(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a run that logged a loss; None: not read.

    `loss_points` hold the course of the loss, thinned to one line, null where it was not finite; `seconds_per_step` is the median;
    `tokens_per_second` is the last that was logged; `peak_gib` is the most that one GPU had in use.
    """

    loss_first: float | None = None
    loss_last: float | None = None
    loss_points: list[float | None] = []
    seconds_per_step: float | None = None
    tokens_per_second: float | None = None
    peak_gib: float | None = None
    duration_seconds: float | None = None
    checkpoint: str | None = None


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What ran: the fields that a report and a row of `lfdoctor scan` share. `version` is the framework's."""

    path: str
    framework: str | None = None
    version: str | None = None
    stage: str | None = None
    finetuning_type: str | None = None
    model: str | None = None
    world_size: int | None = None

    def identity(self) -> dict[str, Any]:
        """These fields by name."""
        return {name: getattr(self, name) for name in RunIdentity.__struct_fields__}


class RunView(RunIdentity, frozen=True, kw_only=True):
    """What ran, on what, and how it ended."""

    environment: dict[str, Any] = {}
    status: Status = "unknown"
    steps: StepsView = StepsView()
    vitals: VitalsView | None = None
    sources: list[SourceView] = []
    skipped: list[SkippedView] = []


class OtherRunView(msgspec.Struct, frozen=True):
    """Another run in the folder that was given; it was not read, so its status is unknown."""

    path: str
    status: Status = "unknown"


class EvidenceView(msgspec.Struct, frozen=True):
    """A quote that proves a finding. `mark`: the words in `text` that decided; `before`, `after`: the lines around it in the file."""

    source: str
    line: int | None
    step: int | None
    text: str
    mark: str | None = None
    before: list[str] = []
    after: list[str] = []


class GuideView(msgspec.Struct, frozen=True):
    """A step of the guide's troubleshooting chapter; `title` in the report's language."""

    section: Section
    step: int
    title: str = ""


class ChangeView(msgspec.Struct, frozen=True):
    """One changed key; `target` is config, env, deepspeed or command, `op` set, unset, or (value not read, `new` is the factor) scale."""

    target: str
    op: str
    key: str
    old: Any
    new: Any


class RemedyView(msgspec.Struct, frozen=True, kw_only=True):
    """A remedy, its status in this run, and the reason for it.

    `apply` says that it would help; `in_patch`, that the patch does it. One that applies and is not in the patch is for the case that the
    patch is not enough. `primary`: done by hand, and it comes before all that the patch changes.
    """

    id: str
    guide: GuideView | None
    status: Literal["apply", "done", "not_applicable", "conflict", "rejected", "manual"]
    in_patch: bool = False
    reason: str
    text: str
    cost: str
    effect: str
    primary: bool = False
    changes: list[ChangeView] = []
    command: str | None = None
    correction: str | None = None
    references: list[str] = []


class SimilarView(msgspec.Struct, frozen=True):
    """A public issue with a similar error: `score` is the cosine (0..1), `remedy` what fixed it."""

    issue: str
    score: float
    remedy: str


class SaysView(msgspec.Struct, frozen=True):
    """What the message of an exception itself advises: its sentence, and one line to paste into a shell if it names a command."""

    kind: Literal["option", "variable", "command", "hint"]
    text: str
    command: str | None = None


class CandidateView(msgspec.Struct, frozen=True):
    """A cause that a failure may have: its probability (0..1), the words and places of the log that speak for it, what would confirm it."""

    cause: str
    probability: float
    title: str
    reasons: list[str]
    check: str


class SeriesView(msgspec.Struct, frozen=True):
    """What was logged of a metric, thinned: `values` at `steps` (null: not finite), and the first and last step of `marks` concerned."""

    metric: str
    steps: list[int]
    values: list[float | None]
    marks: list[int]

    def __post_init__(self) -> None:
        if not (len(self.steps) == len(self.values) > 0 and self.marks):
            raise ValueError("a series has as many values as steps, and marks")


class FindingView(msgspec.Struct, frozen=True, kw_only=True):
    """One finding, in one language."""

    rule: str
    cause: str | None
    symptom: str
    family: str
    severity: Literal["error", "warning", "note"]
    role: Literal["root", "consequence", "contributing"]
    confidence: float
    title: str
    text: str
    steps: list[int] | None
    ranks: list[int]
    explained_by: str | None
    evidence: list[EvidenceView]
    remedies: list[RemedyView] = []
    similar: list[SimilarView] = []
    count: int = 1
    series: SeriesView | None = None
    phase: str | None = None
    says: list[SaysView] = []
    candidates: list[CandidateView] = []
    samples: Samples | None = None


class MemoryView(msgspec.Struct, frozen=True):
    """Predicted peak memory of one GPU, GiB: before and after the patch, `low` to `high` for after. `terms` add up to each."""

    before: float | None
    after: float | None
    low: float | None
    high: float | None
    capacity: float | None
    terms: dict[Literal["before", "after"], dict[str, float]] | None = None


class PredictedView(msgspec.Struct, frozen=True):
    """Predicted effect of the patch. `effective_batch`: samples per optimizer step, before and after."""

    memory_gib: MemoryView | None = None
    effective_batch: list[int] | None = None
    speed: str | None = None


class PatchView(msgspec.Struct, frozen=True, kw_only=True):
    """The patch. Without the run's own YAML `yaml` and `diff` are None, and `overrides` hold the changes as key=value words.

    `command` starts the training again and expects the patched YAML under the name `file`; `packages` are to be installed before.
    `options` of `lfdoctor fix` lead to this patch again. `written` is the file that `yaml` was written to, if any. `fixed_by` says, in a
    report of `check`, what writes it into the checked file: --fix all of it, --unsafe-fixes all or a part of it, or only an editor.
    """

    source: str | None
    changes: list[ChangeView]
    because: dict[str, str] = {}
    diff: str | None
    yaml: str | None
    overrides: list[str] = []
    command: str | None = None
    file: str | None = None
    packages: list[str] = []
    options: list[str] = []
    notes: list[str] = []
    predicted: PredictedView = PredictedView()
    written: str | None = None
    fixed_by: Literal["safe", "unsafe", "partly", "nothing"] | None = None


class BlindView(msgspec.Struct, frozen=True):
    """A rule that could not be checked, and the input that is missing."""

    rule: str
    missing: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of `lfdoctor run --heal`: what it changed and why, the checkpoint it resumed from, how it ended.

    `redone`: steps of the previous attempt that were trained again. `resumed_from` None: from scratch.
    """

    number: int
    outcome: Literal["finished", "failed", "stopped", "interrupted"]
    code: int
    why: str
    changes: list[ChangeView] = []
    config: str | None = None
    command: str = ""
    resumed_from: str | None = None
    redone: int | None = None
    cause: str | None = None
    title: str | None = None
    last_step: int | None = None
    effective_batch: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer. `cause` is the root finding's; `healthy` is true only if `verdict` is healthy.

    Quotes are masked; `patch.yaml` is not: it is the user's own file and must stay usable. `curves` hold the logged series for plots.
    `translations` hold the texts in the other languages, by their place in the report (`findings.0.title`).
    After `lfdoctor run --heal` findings are the last attempt's; `attempts` lists all, `healing` is the outcome; `time`: of a watched run.
    """

    format: int = FORMAT
    kind: Literal["analyze", "check"] = "analyze"
    tool: ToolView
    lang: str = "en"
    verdict: Verdict = "undecided"
    healthy: bool
    cause: str | None
    run: RunView
    other_runs: list[OtherRunView] = []
    findings: list[FindingView] = []
    patch: PatchView | None = None
    could_not_look: list[BlindView] = []
    rules_looked: int = 0
    problems: list[str] = []
    curves: list[Curve] = []
    capacity_gib: float | None = None
    translations: dict[str, dict[str, str]] = {}
    attempts: list[AttemptView] = []
    healing: str | None = None
    time: TimeView | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able dicts and lists; the secrets in `patch.yaml` are masked too."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        if self.patch and self.patch.yaml:
            data["patch"]["yaml"] = secrets.mask(self.patch.yaml)
        return data

    def to_markdown(self) -> str:
        """Markdown for an issue or a chat."""
        return outputs.text(self, "markdown")

    def to_html(self) -> str:
        """One self-contained web page."""
        return outputs.text(self, "html")

    def save(self, path: str | Path) -> Path:
        """Write the report to a file; its suffix decides: .html, .md, .json, .sarif or .txt. Returns the path. Raises DoctorError."""
        return outputs.save(self, path)

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        from doctor.report.notebook_card import report_html

        return report_html(self)
