"""Findings, plan and run -> the report, written once with its texts in every language."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from doctor.config.options import scope_of
from doctor.core.events import Where
from doctor.core.run import Run
from doctor.core.series import downsample, finite_or_none
from doctor.planner.types import Advice, FixedBy, Memory, Plan, PlannedPatch
from doctor.privacy.personal import private
from doctor.privacy.secrets import clean, plain
from doctor.report import figures
from doctor.report.context import Context
from doctor.report.curves import of_run
from doctor.report.model import (
    BlindView,
    CandidateView,
    ChangeView,
    EvidenceView,
    FindingView,
    GuideView,
    MemoryView,
    OtherRunView,
    PatchView,
    PredictedView,
    RemedyView,
    Report,
    SaysView,
    SeriesView,
    SimilarView,
    SkippedView,
    SourceView,
    Status,
    ToolView,
    Verdict,
)
from doctor.report.quoting import Quote, fill, placeholders, quotes
from doctor.report.run_row import run_view, short_text
from doctor.report.status import positive
from doctor.report.texts import TextWriter
from doctor.rulebook.conditions import holds
from doctor.rulebook.findings import Candidate, Finding, RankedFinding, Samples, UncheckedRule
from doctor.rulebook.model import Body, GuideStep, Remedy, Rulebook, Section
from doctor.support import shell
from doctor.support.texts import Text
from doctor.version import __version__
from doctor.words.catalogue import Words
from doctor.words.josa import resolve_josa

_OWN_COMMAND = re.compile(r"llamafactory-cli|pip install -e \.")
"""Commands that only LLaMA-Factory and its folder have."""
SERIES_POINTS = 72
"""Points of a finding's series: one per column of a terminal line."""
_METRIC_OF = {
    "loss_spike": "loss", "divergence": "loss", "nonfinite": "loss", "zero_loss": "loss", "plateau": "loss",
    "overfitting": "eval_loss", "gradient": "grad_norm",
}  # fmt: skip
"""The series that shows a symptom best, if neither the match nor the rule names one."""


class SimilarIssue(msgspec.Struct, frozen=True):
    """A public issue with a similar error: `owner/repo#number`, the cosine (0..1), and what fixed it."""

    issue: str
    score: float
    fix: Text


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of: what was read, what was found in it, and what to do about it.

    `similar[i]` belongs to `ranked[i]`; empty if nothing was looked up. `contexts` hold the lines around pieces of evidence. `config_path`
    is the run's YAML; a run that is not one of LLaMA-Factory's is told no `llamafactory-cli` command. `rules` is how many were asked (None:
    all); `fixed_by` is what writes the patch into a checked config.
    """

    path: str
    run: Run
    ranked: Sequence[RankedFinding]
    plan: Plan
    status: Status
    verdict: Verdict
    kind: Literal["analyze", "check"] = "analyze"
    unchecked: Sequence[UncheckedRule] = ()
    similar: Sequence[Sequence[SimilarIssue]] = ()
    sources: Sequence[SourceView] = ()
    skipped: Sequence[SkippedView] = ()
    contexts: Mapping[Where, Context] = MappingProxyType({})
    problems: Sequence[str] = ()
    config_path: str | None = None
    llamafactory: bool = True
    other_runs: Sequence[OtherRunView] = ()
    rules: int | None = None
    fixed_by: FixedBy | None = None


def build(diagnosis: Diagnosis, book: Rulebook, lang: str) -> Report:
    """The report in `lang`, with its texts in the other languages. Raises DoctorError for an unknown language."""
    writer = ReportWriter(diagnosis, book, lang)
    similar = diagnosis.similar or [()] * len(diagnosis.ranked)
    rows = zip(diagnosis.ranked, diagnosis.plan.advice, similar, strict=True)
    findings = [writer.finding(number, *row) for number, row in enumerate(rows)]
    return Report(
        kind=diagnosis.kind,
        tool=ToolView("lfdoctor", __version__),
        lang=lang,
        verdict=diagnosis.verdict,
        healthy=diagnosis.verdict == "healthy",
        cause=next((finding.cause for finding in findings if finding.role == "root"), None),
        run=run_view(diagnosis.run, diagnosis.path, diagnosis.status, diagnosis.sources, diagnosis.skipped),
        other_runs=[msgspec.structs.replace(other, path=clean(other.path)) for other in diagnosis.other_runs],
        findings=findings,
        patch=writer.patch(diagnosis.plan.patch, diagnosis.fixed_by) if diagnosis.plan.patch else None,
        could_not_look=[BlindView(unchecked.rule.id, clean(unchecked.missing)) for unchecked in diagnosis.unchecked],
        rules_looked=max(0, (len(book.rules) if diagnosis.rules is None else diagnosis.rules) - len(diagnosis.unchecked)),
        problems=[clean(problem) for problem in diagnosis.problems],
        curves=of_run(diagnosis.run),
        capacity_gib=positive(diagnosis.run.facts.get("gpu.total_gib")),
        translations=writer.texts.translations(),
    )


class ReportWriter:
    """Turns the records of one diagnosis into views; every text goes through `texts`."""

    def __init__(self, diagnosis: Diagnosis, book: Rulebook, lang: str) -> None:
        self.run = diagnosis.run
        self.contexts = diagnosis.contexts
        self.llamafactory = diagnosis.llamafactory
        logs = [source.path for source in diagnosis.sources if source.kind == "console" and source.path != "-"]
        self._paths = {
            "<config>": shell.path(clean(diagnosis.config_path)) if diagnosis.config_path else "your-config.yaml",
            "<log>": shell.path(clean(logs[0])) if logs else "your.log",
        }
        self.patched = diagnosis.plan.patch.patch.changes if diagnosis.plan.patch else ()
        self.texts = TextWriter(lang)
        steps = book.guide.steps if book.guide else ()
        self.guide: dict[tuple[Section, int], GuideStep] = {(step.section, step.step): step for step in steps}

    def finding(self, number: int, ranked: RankedFinding, advice: Sequence[Advice], similar: Sequence[SimilarIssue]) -> FindingView:
        """A finding; its text is the first paragraph of the rule whose condition holds and whose placeholders are all known."""
        place, finding, rule = f"findings.{number}", ranked.finding, ranked.finding.rule
        scope = scope_of(self.run, finding.first.facts)
        body = next((body for body in rule.body if _may_say(body, scope)), None)
        return FindingView(
            rule=rule.id,
            cause=None if rule.cause == "unknown" else rule.cause,
            symptom=rule.symptom,
            family=rule.family,
            severity=finding.severity,
            role=ranked.role,
            confidence=round(finding.confidence, 3),
            title=self._fill(f"{place}.title", rule.title, scope),
            text=self._fill(f"{place}.text", body, scope),
            steps=list(finding.steps) if finding.steps else None,
            ranks=list(finding.ranks),
            explained_by=ranked.explained_by,
            evidence=[self._evidence(f"{place}.evidence.{at}", quote) for at, quote in enumerate(quotes(finding))],
            remedies=[self._remedy(f"{place}.remedies.{at}", row, scope) for at, row in enumerate(advice)],
            similar=[self._similar(f"{place}.similar.{at}", row) for at, row in enumerate(similar)],
            count=finding.count,
            series=_series(self.run, finding),
            phase=short_text(finding.first.facts.get("phase")),
            says=[SaysView(one.kind, private(clean(one.quote)), clean(one.command) if one.command else None) for one in finding.says],
            candidates=[self._candidate(f"{place}.candidates.{at}", one) for at, one in enumerate(finding.candidates)],
            samples=_masked(finding.samples),
        )

    def _candidate(self, place: str, one: Candidate) -> CandidateView:
        return CandidateView(
            cause=one.cause,
            probability=round(one.probability, 2),
            title=self.texts.put(f"{place}.title", one.title),
            reasons=[private(clean(reason)) for reason in one.reasons],
            check=self.texts.put(f"{place}.check", one.check),
        )

    def patch(self, planned: PlannedPatch, fixed_by: FixedBy | None) -> PatchView:
        """The patch; its YAML stays as it is, everything else is masked."""
        return PatchView(
            source=clean(planned.source) if planned.source else None,
            changes=_changes(planned.patch.changes),
            because=planned.patch.because,
            diff=clean(planned.diff) if planned.diff is not None else None,
            yaml=planned.yaml,
            overrides=[clean(word) for word in planned.overrides],
            command=clean(planned.command) if planned.command else None,
            file=planned.file,
            packages=list(planned.packages),
            options=list(planned.options),
            notes=[self.texts.put(f"patch.notes.{at}", note) for at, note in enumerate(planned.notes)],
            predicted=PredictedView(
                memory_gib=_memory(planned.memory) if planned.memory else None,
                effective_batch=list(planned.effective_batch) if planned.effective_batch else None,
                speed=self.texts.put("patch.predicted.speed", planned.speed) if planned.speed else None,
            ),
            fixed_by=fixed_by,
        )

    def _fill(self, place: str, text: Text | None, scope: Mapping[str, Mapping[str, Any]]) -> str:
        """A rule's text with its facts; Korean particles in the form that the word before takes."""
        if text is None:
            return ""
        known = _lookup(scope)

        def written(words: Words) -> str:
            filled = fill(text.get(words.lang), lambda name: _sayable(name, known(name), words))
            return resolve_josa(filled) if words.lang == "ko" else filled

        return self.texts.write(place, written)

    def _evidence(self, place: str, quote: Quote) -> EvidenceView:
        around = self.contexts.get(quote.where, Context())
        text = self.texts.write(f"{place}.text", lambda words: figures.in_language(quote.text, words))
        return EvidenceView(clean(quote.where.file), quote.where.line, quote.where.step, text, quote.mark, around.before, around.after)

    def _remedy(self, place: str, advice: Advice, scope: Mapping[str, Mapping[str, Any]]) -> RemedyView:
        remedy = advice.remedy
        step = self.guide.get(remedy.guide_step) if remedy.guide_step else None
        return RemedyView(
            id=remedy.id,
            guide=self._guide(f"{place}.guide.title", remedy.guide_step),
            status=advice.status,
            reason=self._fill(f"{place}.reason", advice.reason, scope),
            text=self._fill(f"{place}.text", remedy.text, scope),
            cost=self._fill(f"{place}.cost", remedy.cost, scope),
            effect=remedy.effect,
            in_patch=advice.status == "apply" and bool(advice.changes) and all(change in self.patched for change in advice.changes),
            primary=advice.status == "manual" and not remedy.check and (remedy.effect != "manual" or (remedy.price or 1) < 1),
            changes=_changes(advice.changes),
            command=self._command(remedy, scope),
            correction=self.texts.put(f"{place}.correction", step.correction) if step and step.correction else None,
            references=list(remedy.references),
        )

    def _command(self, remedy: Remedy, scope: Mapping[str, Mapping[str, Any]]) -> str | None:
        """A remedy's command, on the run's own config and first log; texts of a log are quoted."""
        if not remedy.command or (not self.llamafactory and _OWN_COMMAND.search(remedy.command)):
            return None
        known = _lookup(scope)
        command = fill(remedy.command, lambda name: shell.word(value) if isinstance(value := known(name), str) else value)
        for name, path in self._paths.items():
            command = command.replace(name, path)
        return command

    def _guide(self, place: str, step: tuple[Section, int] | None) -> GuideView | None:
        """The guide's own words in Korean, their translation elsewhere."""
        if step is None:
            return None
        known = self.guide.get(step)
        title = (
            self.texts.write(place, lambda words: known.guide_ko if words.lang == "ko" else known.remedy.text.get(words.lang))
            if known
            else ""
        )
        return GuideView(*step, title=title)

    def _similar(self, place: str, issue: SimilarIssue) -> SimilarView:
        return SimilarView(issue.issue, round(issue.score, 2), self.texts.put(f"{place}.remedy", issue.fix))


def _masked(samples: Samples | None) -> Samples | None:
    """The names of the files are the user's."""
    if samples is None:
        return None
    return msgspec.structs.replace(samples, rows=tuple(msgspec.structs.replace(row, file=private(clean(row.file))) for row in samples.rows))


def _may_say(body: Body, scope: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a paragraph's condition holds and all its placeholders are known."""
    known = _lookup(scope)
    return (not body.where or holds(body.where, scope)) and all(known(name) is not None for name in placeholders(body.en))


def _lookup(scope: Mapping[str, Mapping[str, Any]]) -> Callable[[str], Any]:
    """Values that texts name: `config.x` (effective), `run.x`, `fact.x`; any other name is a fact."""

    def known(name: str) -> Any:
        root, _, rest = name.partition(".")
        return scope[root].get(rest) if root in scope and rest else scope["fact"].get(name)

    return known


def _sayable(name: str, value: Any, words: Words) -> Any:
    """A value as a sentence may say it: phases in words, names of people, hosts and samples masked as in quotes."""
    if name in ("phase", "fact.phase"):
        return words.phase.get(str(value), value)
    return private(value, raised=True) if isinstance(value, str) else value


def _series(run: Run, finding: Finding) -> SeriesView | None:
    """The series that shows the finding, thinned, with the steps concerned as marks."""
    metric = finding.first.facts.get("metric") or finding.rule.params.get("metric") or _METRIC_OF.get(finding.rule.symptom)
    if not isinstance(metric, str) or (series := run.series.get(metric)) is None or len(series) < 4 or finding.steps is None:
        return None
    steps, values = downsample(series.steps, series.values, SERIES_POINTS)
    return SeriesView(metric, steps, finite_or_none(values), list(finding.steps))


def _changes(changes: Sequence[Any]) -> list[ChangeView]:
    return [
        ChangeView(change.target, change.op, change.key, plain(change.old, change.key), plain(change.new, change.key)) for change in changes
    ]


def _memory(memory: Memory) -> MemoryView:
    terms: dict[Literal["before", "after"], dict[str, float]] | None = None
    if memory.terms:
        terms = {"before": memory.terms[0], "after": memory.terms[1]}
    return MemoryView(memory.before, memory.after, memory.low, memory.high, memory.capacity, terms)
