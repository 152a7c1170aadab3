"""Report: plain frozen data, JSON-able, words already in one language (format 1: keys may be added, never renamed)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from doctor.config.options import scope_of
from doctor.core.events import ProcessEnd, Where
from doctor.core.run import Run
from doctor.planner.plan import Advice, Memory, Plan, PlannedPatch
from doctor.privacy import secrets
from doctor.privacy.personal import private
from doctor.privacy.secrets import clean, plain
from doctor.report import translations as translate
from doctor.report.context import Context
from doctor.report.curves import Curve, of_run
from doctor.report.quoting import deciding_words, downsample, excerpt, fill, placeholders, resolve_josa
from doctor.rulebook.conditions import holds
from doctor.rulebook.findings import Finding, RankedFinding, UncheckedRule
from doctor.rulebook.model import Body, GuideStep, Rulebook
from doctor.support.languages import LANGUAGES
from doctor.support.texts import Text
from doctor.version import __version__
from doctor.words import catalogue
from doctor.words.catalogue import Words

FORMAT = 1
EVIDENCE_CHARS = 480
"""A quoted piece of evidence is cut to this many characters around its deciding words: six lines of a terminal."""
SERIES_POINTS = 72
"""Points of a finding's series in a report: one line of a terminal."""


class ToolView(msgspec.Struct, frozen=True):
    """Who wrote the report."""

    name: str
    version: str


class SourceView(msgspec.Struct, frozen=True):
    """One thing that was read (or why it was not)."""

    path: str
    kind: str
    bytes: int
    records: int
    problems: list[str] = []


class SkippedView(msgspec.Struct, frozen=True):
    """What was not opened: `reason` (weights, archive, data set, ...), how many, and the first of them."""

    reason: str
    count: int
    examples: list[str]


class StepsView(msgspec.Struct, frozen=True):
    """Training steps as the run counts them."""

    first: int | None = None
    last: int | None = None
    planned: int | None = None


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """The run in one row."""

    path: str
    framework: str | None = None
    version: str | None = None
    stage: str | None = None
    finetuning_type: str | None = None
    model: str | None = None
    world_size: int | None = None
    environment: dict[str, Any] = {}
    status: Literal["completed", "failed", "interrupted", "running", "unknown"] = "unknown"
    steps: StepsView = StepsView()
    sources: list[SourceView] = []
    skipped: list[SkippedView] = []


class EvidenceView(msgspec.Struct, frozen=True):
    """A quoted piece of proof; `mark` are the words of `text` that decided, `before` and `after` the lines around it in the file."""

    source: str
    line: int | None
    step: int | None
    text: str
    mark: str | None = None
    before: list[str] = []
    after: list[str] = []


class GuideView(msgspec.Struct, frozen=True):
    """A step of the guide's troubleshooting chapter."""

    section: str
    step: int
    title: str = ""


class ChangeView(msgspec.Struct, frozen=True):
    """One key of a patch."""

    target: str
    op: str
    key: str
    old: Any
    new: Any


class RemedyView(msgspec.Struct, frozen=True, kw_only=True):
    """A remedy, whether it applies here, and why."""

    id: str
    guide: GuideView | None
    status: Literal["apply", "done", "not_applicable", "conflict", "rejected", "manual"]
    reason: str
    text: str
    cost: str
    effect: str
    changes: list[ChangeView] = []
    command: str | None = None
    correction: str | None = None
    references: list[str] = []


class SimilarView(msgspec.Struct, frozen=True):
    """A public issue that looks like this failure."""

    issue: str
    score: float
    remedy: str


class FindingView(msgspec.Struct, frozen=True, kw_only=True):
    """One finding, in the words of one language."""

    rule: str
    cause: str
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
    series: dict[str, Any] | None = None
    phase: str | None = None


class MemoryView(msgspec.Struct, frozen=True):
    """Predicted peak memory of one GPU in GiB, before and after the patch, with the interval of the latter; `terms` add up to either."""

    before: float | None
    after: float | None
    low: float | None
    high: float | None
    capacity: float | None
    terms: dict[Literal["before", "after"], dict[str, float]] | None = None


class PredictedView(msgspec.Struct, frozen=True):
    """What the patch is predicted to do."""

    memory_gib: MemoryView | None = None
    effective_batch: list[int] | None = None
    speed: str | None = None


class PatchView(msgspec.Struct, frozen=True, kw_only=True):
    """The patched config and what it changes; without the run's own YAML, `yaml` and `diff` are None and `overrides` is the way.

    `written` is the file that `yaml` has been written to, if it has.
    """

    source: str | None
    changes: list[ChangeView]
    because: dict[str, str] = {}
    diff: str | None
    yaml: str | None
    overrides: list[str] = []
    command: str | None = None
    notes: list[str] = []
    predicted: PredictedView = PredictedView()
    written: str | None = None


class BlindView(msgspec.Struct, frozen=True):
    """A rule that could not look."""

    rule: str
    missing: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a training that `lfdoctor run --heal` watched: what it changed and why, from where it went on, how it ended.

    `redone` are the steps of the attempt before that this one had to train again; `resumed_from` a checkpoint, None: from zero.
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
    """The whole answer. `cause` is the root finding's; `healthy` means no finding above a note and no sign that the run failed.

    Everything quoted is masked but `patch.yaml`, which is the user's own file and must stay usable. `curves` are what
    the run measured, for plots; `translations` the sentences in the other languages, by their place in the report.
    After `lfdoctor run --heal` the findings are the last attempt's, `attempts` tells of all, and `healing` how it came out.
    """

    format: int = FORMAT
    kind: Literal["analyze", "check"] = "analyze"
    tool: ToolView
    lang: str = "en"
    healthy: bool
    cause: str | None
    run: RunView
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

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able dicts and lists, fit to be shown to others: the secrets of `patch.yaml` are masked too."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        if self.patch and self.patch.yaml:
            data["patch"]["yaml"] = secrets.mask(self.patch.yaml)
        return data

    def _repr_html_(self) -> str:
        """How a notebook shows the report."""
        from doctor.report.notebook_card import report_html

        return report_html(self)


def build(
    judged: Sequence[RankedFinding],
    plan: Plan,
    run: Run,
    blind: Sequence[UncheckedRule],
    sources: Sequence[SourceView],
    *,
    book: Rulebook,
    path: str,
    lang: str,
    problems: Sequence[str] = (),
    kind: Literal["analyze", "check"] = "analyze",
    contexts: Mapping[Where, Context] = MappingProxyType({}),
    skipped: Sequence[SkippedView] = (),
) -> Report:
    """Findings, plan and run as a report in one language, with its sentences in the others. DoctorError for a language without words.

    `contexts` are the lines around pieces of evidence, where their files could be read.
    """
    pieces = Pieces(judged, plan, run, blind, sources, path, problems, kind, contexts, skipped, of_run(run))
    others = [_written(pieces, book, other) for other in LANGUAGES if other != lang]
    return translate.with_translations(_written(pieces, book, lang), others)


class Pieces(msgspec.Struct, frozen=True):
    """What a report is made of, before any language."""

    judged: Sequence[RankedFinding]
    plan: Plan
    run: Run
    blind: Sequence[UncheckedRule]
    sources: Sequence[SourceView]
    path: str
    problems: Sequence[str]
    kind: Literal["analyze", "check"]
    contexts: Mapping[Where, Context]
    skipped: Sequence[SkippedView]
    curves: list[Curve]


def _written(pieces: Pieces, book: Rulebook, lang: str) -> Report:
    """The report in one language."""
    judged, plan, run = pieces.judged, pieces.plan, pieces.run
    writer = Writer(run, book, catalogue.load(lang), pieces.contexts)
    findings = [writer.finding(one, advice) for one, advice in zip(judged, plan.advice, strict=True)]
    left = [msgspec.structs.replace(one, examples=[clean(path) for path in one.examples]) for one in pieces.skipped]
    view = msgspec.structs.replace(writer.run_view(judged, pieces.path, pieces.sources), skipped=left)
    if pieces.kind == "check":  # nothing ran yet: a refused config is no failed run
        view = msgspec.structs.replace(view, status="unknown")
    return Report(
        kind=pieces.kind,
        tool=ToolView("lfdoctor", __version__),
        lang=lang,
        healthy=view.status not in ("failed", "interrupted") and all(one.severity == "note" for one in findings),
        cause=next((one.cause for one in findings if one.role == "root"), None),
        run=view,
        findings=findings,
        patch=writer.patch(plan.patch) if plan.patch else None,
        could_not_look=[BlindView(one.rule.id, one.missing) for one in pieces.blind],
        rules_looked=max(0, len(book.rules) - len(pieces.blind)),
        problems=[clean(problem) for problem in pieces.problems],
        curves=pieces.curves,
        capacity_gib=_gib(run.facts.get("gpu.total_gib")),
    )


class Writer:
    """Turns records into views: one run, one language."""

    def __init__(self, run: Run, book: Rulebook, say: Words, contexts: Mapping[Where, Context]) -> None:
        self.run = run
        self.contexts = contexts
        self.book = book
        self.words = say
        guide = book.guide
        self.steps: dict[tuple[str, int], GuideStep] = {(one.section, one.step): one for one in guide.steps} if guide else {}

    def finding(self, judged: RankedFinding, advice: Sequence[Advice]) -> FindingView:
        """A finding; its text is the first of the rule's bodies whose facts are all known."""
        finding, rule = judged.finding, judged.finding.rule
        known = self._known(finding.first.facts)
        body = next((body for body in rule.body if self._may_say(body, finding.first.facts)), None)
        return FindingView(
            rule=rule.id,
            cause=rule.cause,
            symptom=rule.symptom,
            family=rule.family,
            severity=rule.severity,
            role=judged.role,
            confidence=round(finding.confidence, 3),
            title=self._fill(rule.title, known),
            text=self._fill(body, known) if body else "",
            steps=list(finding.steps) if finding.steps else None,
            ranks=list(finding.ranks),
            explained_by=judged.explained_by,
            evidence=self._evidence(finding),
            remedies=[self._remedy(one, known) for one in advice],
            count=finding.count,
            series=self._series(finding),
            phase=_text(finding.first.facts.get("phase")),
        )

    def _evidence(self, finding: Finding) -> list[EvidenceView]:
        """The quotes, each cut around the words that decided, with the lines around it."""
        params, facts = finding.rule.params, finding.first.facts
        out = []
        for piece in finding.evidence:
            deciding = deciding_words(params, facts, piece.text)
            quoted = private(excerpt(piece.text, deciding, EVIDENCE_CHARS))
            mark = _deciding(quoted, deciding)
            around = self.contexts.get(piece.where, Context())
            where = piece.where
            out.append(EvidenceView(clean(where.file), where.line, where.step, quoted, mark, around.before, around.after))
        return out

    def _say(self, text: Text) -> str:
        return text.in_language(self.words.lang)

    def _fill(self, text: Text, known: Callable[[str], Any]) -> str:
        filled = fill(self._say(text), lambda name: _told(known(name)))
        return resolve_josa(filled) if self.words.lang == "ko" else filled

    def _may_say(self, body: Body, facts: Mapping[str, Any]) -> bool:
        """Whether a paragraph's condition holds and all its placeholders are known."""
        if body.where and not holds(body.where, scope_of(self.run, facts)):
            return False
        known = self._known(facts)
        return all(known(name) is not None for name in placeholders(self._say(body)))

    def _known(self, facts: Mapping[str, Any]) -> Callable[[str], Any]:
        """What texts may name: facts of the match, else of the run, and `config.x` (effective), `run.x`, `fact.x`; phases read as words."""
        scope = scope_of(self.run, facts)

        def known(name: str) -> Any:
            root, _, rest = name.partition(".")
            value = scope[root].get(rest) if root in scope and rest else scope["fact"].get(name)
            return self.words.phase.get(str(value), value) if name in ("phase", "fact.phase") else value

        return known

    def _remedy(self, advice: Advice, known: Callable[[str], Any]) -> RemedyView:
        remedy = advice.remedy
        step = self.steps.get(remedy.guide_step) if remedy.guide_step else None
        correction = step.correction if step else None
        return RemedyView(
            id=remedy.id,
            guide=self._guide(remedy.guide_step),
            status=advice.status,
            reason=self._fill(advice.reason, known),
            text=self._fill(advice.text or remedy.text, known),
            cost=self._fill(remedy.cost, known) if remedy.cost else "",
            effect=remedy.effect,
            changes=_changes(advice.changes),
            command=fill(remedy.command, known) if remedy.command else None,
            correction=self._say(correction) if correction else None,
            references=list(remedy.references),
        )

    def _guide(self, place: tuple[str, int] | None) -> GuideView | None:
        """Where the guide says it, under the guide's own words in Korean and their translation elsewhere."""
        if place is None:
            return None
        step = self.steps.get(place)
        return GuideView(*place, title=(step.guide_ko if self.words.lang == "ko" else self._say(step.remedy.text)) if step else "")

    def _series(self, finding: Finding) -> dict[str, Any] | None:
        """The series the finding speaks of, thinned, with the steps concerned as marks."""
        metric = finding.first.facts.get("metric") or finding.rule.params.get("metric") or _METRIC_OF.get(finding.rule.symptom)
        series = self.run.series.get(metric) if isinstance(metric, str) else None
        if series is None or len(series) < 4 or finding.steps is None:
            return None
        steps, values = downsample(series.steps, series.values, SERIES_POINTS)
        return {"metric": metric, "steps": steps, "values": values, "marks": list(finding.steps)}

    def run_view(self, judged: Sequence[RankedFinding], path: str, sources: Sequence[SourceView]) -> RunView:
        """The run in one row."""
        config, facts = self.run.config, self.run.facts
        return RunView(
            path=clean(path),
            framework=_text(facts.get("framework")),
            version=_text(facts.get("versions.llamafactory")),
            stage=_text(config.get("stage")),
            finetuning_type=_text(config.get("finetuning_type")),
            model=_text(config.get("model_name_or_path")),
            world_size=_whole(facts.get("world_size")),
            environment=_environment(facts),
            status=_status(self.run, judged),
            steps=StepsView(self.run.first_step, self.run.last_step, _planned(self.run)),
            sources=[msgspec.structs.replace(one, path=clean(one.path), problems=[clean(p) for p in one.problems]) for one in sources],
        )

    def patch(self, planned: PlannedPatch) -> PatchView:
        """The patch; its YAML stays as it is, everything else is masked."""
        memory = planned.memory
        return PatchView(
            source=clean(planned.source) if planned.source else None,
            changes=_changes(planned.patch.changes),
            because=planned.patch.because,
            diff=clean(planned.diff) if planned.diff is not None else None,
            yaml=planned.yaml,
            overrides=[clean(one) for one in planned.overrides],
            command=clean(planned.command) if planned.command else None,
            notes=[self._say(note) for note in planned.notes],
            predicted=PredictedView(
                memory_gib=_memory(memory) if memory else None,
                effective_batch=list(planned.effective_batch) if planned.effective_batch else None,
                speed=self._say(planned.speed) if planned.speed else None,
            ),
        )


_METRIC_OF = {
    "loss_spike": "loss", "divergence": "loss", "nonfinite": "loss", "zero_loss": "loss", "plateau": "loss",
    "overfitting": "eval_loss", "gradient": "grad_norm",
}  # fmt: skip
"""The series that shows a symptom best, where neither the match nor the rule names one."""

_ENDS_A_RUN = {"out_of_memory", "stall", "killed", "crash", "config", "data", "environment"}
"""An error of these symptoms stops the run, as an exception does; a loss that diverges does not."""


def _status(run: Run, judged: Sequence[RankedFinding]) -> Literal["completed", "failed", "interrupted", "running", "unknown"]:
    """How the run ended, as far as anything says so; a log that just stops says nothing."""
    errors = [one.finding for one in judged if one.finding.rule.severity == "error"]
    fatal = [one for one in errors if one.rule.symptom in _ENDS_A_RUN or "exception" in one.first.facts]
    ends = [end for end in run.ends if end.signal or end.code]
    stopped = "KeyboardInterrupt" in run.exceptions or any(_asked_to_stop(end.signal, end.code) for end in ends if not _victim(end, ends))
    others = [one for one in fatal if one.rule.symptom != "killed" and one.first.facts.get("exception") != "KeyboardInterrupt"]
    planned = _planned(run)
    if run.completed and not ends:
        return "completed"
    if stopped and not others:
        return "interrupted"
    if fatal or ends:
        return "failed"
    if planned is not None and run.last_step is not None and run.last_step >= planned:
        return "completed"
    if run.facts.get("run.running") is True:
        return "running"
    return "failed" if run.exceptions else "unknown"


def _asked_to_stop(signal: int | None, code: int | None) -> bool:
    """SIGINT or SIGTERM, as a signal or as the exit code that stands for it."""
    return signal in (2, 15) or code in (-2, -15, 130, 143)


def _victim(end: ProcessEnd, ends: Sequence[ProcessEnd]) -> bool:
    """Whether torchrun ended this rank because another one had failed first: nobody asked the run to stop."""
    first = [one for one in ends if one.reporter == end.reporter and one.first]
    return bool(first) and not end.first and not any(_asked_to_stop(one.signal, one.code) for one in first)


def _planned(run: Run) -> int | None:
    steps = _whole(run.facts.get("steps.planned")) or _whole(run.config.get("max_steps"))
    return steps if steps and steps > 0 else None


def _told(fact: Any) -> Any:
    """A fact as a sentence may tell it: what a log says of people, hosts and samples stays out, as it does of quotes."""
    return private(fact, raised=True) if isinstance(fact, str) else fact


def _deciding(quoted: str, words: Sequence[str]) -> str | None:
    """The words of a quote that decided: a phrase as it stands, a lone number or name with the sentence that it stands in."""
    word = next((word for word in map(clean, words) if word and word in quoted), None)
    if word is None or len(word) >= 12:
        return word
    place = quoted.find(word)
    start = quoted.rfind("\n", 0, place) + 1
    ends = [end for stop in (". ", "\n", " (") if (end := quoted.find(stop, place)) >= 0]
    sentence = quoted[start : min([*ends, len(quoted)])]
    return sentence if len(sentence) <= 200 else word


def _changes(changes: Sequence[Any]) -> list[ChangeView]:
    return [ChangeView(one.target, one.op, one.key, plain(one.old, one.key), plain(one.new, one.key)) for one in changes]


def _memory(memory: Memory) -> MemoryView:
    terms: dict[Literal["before", "after"], dict[str, float]] | None = None
    if memory.terms:
        terms = {"before": memory.terms[0], "after": memory.terms[1]}
    return MemoryView(memory.before, memory.after, memory.low, memory.high, memory.capacity, terms)


_ENVIRONMENT = (
    "framework",
    "versions.",
    "gpu.",
    "device",
    "attention",
    "model.params",
    "model.trainable_params",
    "env.",
    "batch.",
    "host.",
)
"""Facts that a maintainer asks for first, by the beginning of their names."""


def _environment(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of machine and software; figures and short texts only."""
    told = {name: plain(value, name) for name, value in sorted(facts.items()) if name.startswith(_ENVIRONMENT)}
    told = {name: private(value, raised=True) if isinstance(value, str) else value for name, value in told.items()}
    return {name: value for name, value in told.items() if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 200)}


def _gib(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def _text(value: Any) -> str | None:
    return clean(str(value)) if value not in (None, "") else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
