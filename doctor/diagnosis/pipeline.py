"""analyze(path): read, detect, find the cause, plan, report. The whole program on one page (of a run; `check.py` beside it of a config)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import ConfigSeen, Event, Step, Where
from doctor.core.run import Run
from doctor.diagnosis import causes, known_issues
from doctor.diagnosis.data_lengths import MayRead, everything, nothing
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.failed_step import failed_steps, written
from doctor.diagnosis.feeding import evidence_places, feed, given_version, views_of
from doctor.diagnosis.message_advice import with_message_advice
from doctor.diagnosis.origin import best_saved, checkpoint_seen, last_saved, launch_of
from doctor.diagnosis.program import is_of_another_program, judges_llamafactorys_options
from doctor.diagnosis.renamed_options import with_new_names
from doctor.diagnosis.similar_step import with_similar_step
from doctor.diagnosis.tools import Tools
from doctor.diagnosis.torch_stack import with_torch_stack
from doctor.diagnosis.training_data import TrainingData
from doctor.diagnosis.unlisted.answer import with_unknown_failure
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.learned import with_candidates
from doctor.diagnosis.unlisted.with_description import with_description
from doctor.diagnosis.unlisted.with_origin import with_origin
from doctor.diagnosis.unlisted.with_release import with_release
from doctor.diagnosis.unlisted.with_update import with_update
from doctor.diagnosis.verdict import verdict
from doctor.planner import plan
from doctor.planner.launching import is_llamafactory
from doctor.planner.plan import ConfigText, PreviousAttempt, Strategy
from doctor.readers import reading as readers
from doctor.readers.base import Reader
from doctor.readers.discovery import ChosenRun, choose_run
from doctor.readers.file import Progress
from doctor.readers.origins import stage_of_folder, stage_of_metrics
from doctor.readers.registry import READERS
from doctor.report import context
from doctor.report.build import Diagnosis, build
from doctor.report.model import OtherRunView, Report, SkippedView
from doctor.report.status import run_status
from doctor.rulebook.findings import Finding, RankedFinding

OTHER_RUNS = 20
"""Other runs of a folder that a report lists; `lfdoctor scan` lists all."""


class Analysis(msgspec.Struct, frozen=True):
    """A report with the records behind it: `judged` are the findings of rules, `run` is everything known of the run."""

    report: Report
    judged: list[RankedFinding]
    run: Run


def analyze(
    path: str | Path | Sequence[str | Path] = ".",
    *,
    config: str | Path | None = None,
    gpu_memory_gib: float | None = None,
    llamafactory_version: str | None = None,
    strategy: Strategy = "least-change",
    lang: str = "en",
    progress: Progress | None = None,
    may_read: MayRead | None = None,
) -> Report:
    """The post-mortem of one run: its folder, a log file, a trainer_*.json(l), an event file, several of these, or `-` (standard input).

    `config` is the training YAML if it is not in the run's folder, `gpu_memory_gib` the memory of one GPU in GiB if the log does not
    say it, `llamafactory_version` a release of LLaMA-Factory or `main`, if the run does not tell. `progress` is
    called for every chunk read, `may_read` asked before a data set is opened. Raises DoctorError: exit code 3 if there is nothing to read,
    2 for an unreadable config or rule.
    """
    given: dict[str, Any] = {"gpu_memory_gib": gpu_memory_gib, "llamafactory_version": llamafactory_version, "strategy": strategy}
    return run_analysis(path, config=config, lang=lang, progress=progress, may_read=may_read or everything, **given).report


def read(path: str | Path | Sequence[str | Path] = ".", *, config: str | Path | None = None) -> Run:
    """Everything known of one run, without a diagnosis: config, facts, series; `read(path).frame()` is the table of its metrics.

    The arguments are those of `analyze`. Raises DoctorError: exit code 3 if there is nothing to read.
    """
    return run_analysis(path, config=config).run


def run_analysis(
    path: str | Path | Sequence[str | Path],
    *,
    config: str | Path | None = None,
    gpu_memory_gib: float | None = None,
    llamafactory_version: str | None = None,
    strategy: Strategy = "least-change",
    lang: str = "en",
    previous_attempts: Sequence[PreviousAttempt] = (),
    tools: Tools | None = None,
    progress: Progress | None = None,
    may_read: MayRead = nothing,
) -> Analysis:
    """`analyze` with the records behind the report.

    `previous_attempts` are failed attempts of the same job: what they changed is not proposed again.
    """
    tools = tools or Tools.load()
    engine = Engine(tools.book.rules, tools.detectors)
    kinds = (*READERS, *tools.added.readers)
    given = Path(config) if config else None
    chosen = _chosen([path] if isinstance(path, str | Path) else list(path), kinds)
    paths = chosen.paths
    reading = readers.read(paths, literals=engine.literals, config=given, readers=kinds, progress=progress)
    seen = LastEvents()
    feed(engine, reading.batches(), seen)
    feed(engine, derived(paths, engine.run))
    if reading.config_source:
        engine.run.facts["config.file"] = reading.config_source[0]
    if (failed := failed_steps(engine.run, seen)) is not None:
        engine.run.facts["failed_steps"] = written(failed)
    feed(engine, given_version(llamafactory_version))
    launch = launch_of(engine.run, [source.path for source in reading.sources if source.kind == "command"])
    ours = is_llamafactory(engine.run, launch)
    found = _teardown_as_notes(engine.findings(), engine.run, seen, tools)
    judged = causes.assign_roles(found if ours else [finding for finding in found if not judges_llamafactorys_options(finding.rule)])
    status = run_status(engine.run, judged, exact_steps=seen.exact_steps)
    consoles = [source.path for source in reading.sources if source.kind == "console"]
    answered = with_origin(with_unknown_failure(judged, status, engine.run, seen, consoles), engine.run, seen)
    answered = with_description(with_candidates(answered, engine.run, seen, consoles), status, engine.run, seen, consoles)
    ranked = with_torch_stack(with_release(answered, engine.run, seen), engine.run, seen.tracebacks)
    ranked = with_new_names(with_update(ranked, engine.run, seen), engine.run)
    if may_read is not nothing:
        data = TrainingData(engine.run, paths, reading.config_source[0] if reading.config_source else None, may_read)
        ranked = [data.of(one, failed) for one in ranked]
        feed(engine, data.lengths(ranked, Where(str(chosen.path))))
    said = verdict("analyze", status, ranked, engine.run)
    stage = known_issues.stage_of(engine.run.config)
    similar = known_issues.similar_issues(ranked, stage=stage) if said in ("failed", "unhealthy") else []
    ranked = with_similar_step(ranked, similar)
    foreign = not ours and (engine.run.facts.get("framework") is not None or is_of_another_program(seen.tracebacks))
    ranked = with_message_advice(ranked) if foreign else ranked
    planned = plan.plan(
        ranked,
        engine.run,
        tools.book,
        strategy=strategy,
        gpu_memory_gib=gpu_memory_gib,
        config_text=ConfigText(*reading.config_source) if reading.config_source else None,
        previous_attempts=previous_attempts,
        launch=launch,
        checkpoint_seen=seen.checkpoint_written or checkpoint_seen(paths, engine.run),
        program="llamafactory" if ours else "other" if foreign else "unknown",
    )
    diagnosis = Diagnosis(
        path=chosen.path,
        other_runs=[OtherRunView(other) for other in (*chosen.others, *reading.other_runs)[:OTHER_RUNS]],
        run=engine.run,
        ranked=ranked,
        plan=planned,
        status=status,
        verdict=said,
        similar=similar,
        unchecked=engine.blind(),
        sources=views_of(reading.sources),
        skipped=[SkippedView(reason, count, examples) for reason, (count, examples) in reading.skipped.reasons.items()],
        contexts=context.around(evidence_places(ranked)),
        problems=[*tools.added.problems, *engine.problems],
        config_path=reading.config_source[0] if reading.config_source else None,
        llamafactory=ours or not (engine.run.config or foreign),
    )
    return Analysis(build(diagnosis, tools.book, lang), judged, engine.run)


def _teardown_as_notes(findings: Sequence[Finding], run: Run, seen: LastEvents, tools: Tools) -> list[Finding]:
    """What stands only on lines below the end of a completed training, without an exception, is a note: its teardown.

    The final metrics stand there too, and are of the training.
    """
    if not run.completed or run.exceptions:
        return list(findings)
    closing = [
        Step not in tools.detectors[one.rule.detector].reads
        and bool(one.evidence)
        and all(seen.is_after_end(piece.where) for piece in one.evidence)
        for one in findings
    ]
    return [msgspec.structs.replace(one, is_note=True) if after else one for one, after in zip(findings, closing, strict=True)]


def _chosen(paths: list[str | Path], kinds: tuple[Reader, ...]) -> ChosenRun:
    """What to read: of a single folder with several runs, one of them."""
    if len(paths) == 1 and Path(paths[0]).is_dir():
        return choose_run(str(paths[0]), kinds)
    return ChosenRun(", ".join(map(str, paths)), list(map(str, paths)))


def derived(paths: Sequence[str | Path], run: Run) -> Iterator[Event]:
    """What only the whole run tells: its stage by the metrics that it logged or by its folder, and its best saved checkpoint."""
    stage = stage_of_metrics(run.series)
    if stage is None and run.facts.get("framework") == "llamafactory":
        stage = stage_of_folder(str(run.config.get("output_dir") or ""))
    if stage is not None and run.config.get("stage") is None:
        yield ConfigSeen(where=Where(str(paths[0])), values={"stage": stage}, origin="inferred")
    yield from best_saved(paths, run)
    yield from last_saved(paths, run)
