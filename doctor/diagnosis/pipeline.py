"""analyze(path) and check(config): read, detect, find the cause, plan, report. The whole program on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.config.options import effective
from doctor.config.preflight import facts_about
from doctor.core.events import ConfigSeen, Event, Fact, Step, Where
from doctor.core.run import Run
from doctor.diagnosis import causes
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.tools import Tools
from doctor.planner import plan
from doctor.planner.plan import ConfigText, PreviousAttempt, Strategy
from doctor.readers import reading as readers
from doctor.report import context
from doctor.report import model as report
from doctor.report.model import Report, SkippedView, SourceView
from doctor.rulebook.findings import RankedFinding


class Analysis(msgspec.Struct, frozen=True):
    """An analysis with what it stands on: the findings as records, and everything that is known of the run."""

    report: Report
    judged: list[RankedFinding]
    run: Run


def analyze(
    path: str | Path | Sequence[str | Path] = ".",
    *,
    config: str | Path | None = None,
    gpu_memory_gib: float | None = None,
    strategy: Strategy = "least-change",
    lang: str = "en",
) -> Report:
    """The post-mortem of one run: its folder, a log file, a trainer_*.json(l), an event file, several of these, or `-` (standard input).

    `config` is the training YAML where it does not lie beside the run, `gpu_memory_gib` the card's memory in GiB where the log does
    not tell it. Raises DoctorError: exit code 3 if there is nothing to read, 2 for an unreadable config or rule.
    """
    return run_analysis(path, config=config, gpu_memory_gib=gpu_memory_gib, strategy=strategy, lang=lang, allow_subprocess=True).report


def run_analysis(
    path: str | Path | Sequence[str | Path],
    *,
    config: str | Path | None = None,
    gpu_memory_gib: float | None = None,
    strategy: Strategy = "least-change",
    lang: str = "en",
    previous_attempts: Sequence[PreviousAttempt] = (),
    tools: Tools | None = None,
    allow_subprocess: bool = False,
) -> Analysis:
    """`analyze`, with what the report stands on. `tried` are other attempts of the same job that failed: nothing of theirs is proposed.

    `helped`: a second process may look through a large log (a scan's workers are many already).
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    tools = tools or Tools.load()
    engine = Engine(tools.book.rules, tools.detectors)
    kinds = (*readers.READERS, *tools.added.readers)
    given = Path(config) if config else None
    reading = readers.read(
        paths, literals=engine.literals, line_patterns=engine.line_patterns, config=given, readers=kinds, allow_subprocess=allow_subprocess
    )
    feed(engine, reading.batches())
    judged = causes.assign_roles(engine.findings())
    text = ConfigText(*reading.config_source) if reading.config_source else None
    planned = plan.plan(
        judged,
        engine.run,
        tools.book,
        strategy=strategy,
        gpu_memory_gib=gpu_memory_gib,
        config_text=text,
        previous_attempts=previous_attempts,
    )
    told = report.build(
        judged,
        planned,
        engine.run,
        engine.blind(),
        _sources(reading),
        book=tools.book,
        path=reading.root,
        lang=lang,
        problems=[*tools.added.problems, *engine.problems],
        contexts=context.around(evidence_places(judged)),
        skipped=[SkippedView(reason, count, examples) for reason, (count, examples) in reading.skipped.reasons.items()],
    )
    return Analysis(told, judged, engine.run)


def check(
    config: str | Path | Mapping[str, Any],
    *,
    folder: str | Path = ".",
    gpu_memory_gib: float | None = None,
    num_gpus: int | None = None,
    lang: str = "en",
) -> Report:
    """A training configuration before it is run: what LLaMA-Factory will refuse or die of, what stands in its way on disk, whether it fits.

    `folder` is where the training will be started (paths in the config are relative to it). Raises DoctorError (2) for an unreadable file.
    """
    tools = Tools.load()
    added, detectors, book = tools.added, tools.detectors, tools.book
    engine = Engine((rule for rule in book.rules if getattr(detectors[rule.detector], "needs", ()) == ("config",)), detectors)
    sources: list[SourceView] = []
    text = None
    if isinstance(config, Mapping):
        where = Where("config")
        engine.feed(ConfigSeen(where=where, values=dict(config)))
    else:
        where = Where(str(config))
        reading = readers.read([], config=Path(config))
        feed(engine, reading.batches())
        text = ConfigText(*reading.config_source) if reading.config_source else None
        sources = _sources(reading)
    for fact in (*_machine(where, gpu_memory_gib, num_gpus), *facts_about(engine.run.config, Path(folder), where)):
        engine.feed(fact)
    feed(engine, forecast(engine.run, where))
    judged = causes.assign_roles(engine.findings())
    planned = plan.plan(judged, engine.run, book, gpu_memory_gib=gpu_memory_gib, config_text=text)
    return report.build(
        judged,
        planned,
        engine.run,
        engine.blind(),
        sources,
        book=book,
        path=str(where),
        lang=lang,
        problems=[*added.problems, *engine.problems],
        kind="check",
        contexts=context.around(evidence_places(judged)),
    )


def evidence_places(judged: Sequence[RankedFinding]) -> Iterator[Where]:
    """The places whose surroundings a reader wants to see: the first proofs of everything above a note."""
    for one in judged:
        if one.finding.rule.severity != "note":
            yield from (piece.where for piece in one.finding.evidence[:3])


def _machine(where: Where, gpu_memory_gib: float | None, num_gpus: int | None) -> Iterator[Fact]:
    """What the user says of the machine, as the facts that a run would have told."""
    if gpu_memory_gib is not None:
        yield Fact(where=where, name="gpu.total_gib", value=gpu_memory_gib)
    if num_gpus is not None:
        yield Fact(where=where, name="world_size", value=num_gpus)


def forecast(run: Run, where: Where) -> Iterator[Fact]:
    """The memory estimate of the run's config as facts (forecast.verdict, ...); nothing where the model's shape is not known."""
    from doctor.memory.estimate import estimate
    from doctor.memory.shapes import UnknownShape

    try:
        predicted = estimate(effective(run.config), facts=run.facts)
    except UnknownShape:
        return
    for name in ("allocated_gib", "low_gib", "high_gib", "capacity_gib", "peak_phase", "verdict"):
        value = getattr(predicted, name)
        if value is not None:
            yield Fact(where=where, name=f"forecast_{name}", value=value)


def _sources(reading: readers.Reading) -> list[SourceView]:
    return [SourceView(one.path, one.kind, one.bytes, one.records, list(one.problems)) for one in reading.sources]


def feed(engine: Engine, events: Iterable[Event | list[Step]]) -> None:
    """All events of a reading into the engine."""
    for event in events:
        if isinstance(event, list):
            engine.feed_all(event)
        else:
            engine.feed(event)
