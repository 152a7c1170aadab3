"""analyze(path) and check(config): read, detect, find the cause, plan, report. The whole program on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor import causes, context, planner, plugins, readers, report, rulebook
from doctor.causes import Judged
from doctor.detectors import DETECTORS
from doctor.engine import Engine
from doctor.events import ConfigSeen, Event, Fact, Step, Where
from doctor.options import effective
from doctor.planner import ConfigText, Strategy, Tried
from doctor.plugins import Plugins
from doctor.report import Report, SkippedView, SourceView
from doctor.rulebook import Rulebook
from doctor.run import Run
from doctor.surroundings import facts_about


class Tools(msgspec.Struct, frozen=True):
    """Rules and plugins, loaded once for many analyses."""

    book: Rulebook
    added: Plugins
    detectors: dict[str, Any]

    @classmethod
    def load(cls) -> Tools:
        """What is shipped and installed. Raises DoctorError for an unreadable rule."""
        added = plugins.load()
        detectors = {**added.detectors, **DETECTORS}
        return cls(rulebook.load(added.rules, detectors=detectors if added.rules else None), added, detectors)


class Examination(msgspec.Struct, frozen=True):
    """An analysis with what it stands on: the findings as records, and everything that is known of the run."""

    report: Report
    judged: list[Judged]
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
    return examine(path, config=config, gpu_memory_gib=gpu_memory_gib, strategy=strategy, lang=lang, helped=True).report


def examine(
    path: str | Path | Sequence[str | Path],
    *,
    config: str | Path | None = None,
    gpu_memory_gib: float | None = None,
    strategy: Strategy = "least-change",
    lang: str = "en",
    tried: Sequence[Tried] = (),
    tools: Tools | None = None,
    helped: bool = False,
) -> Examination:
    """`analyze`, with what the report stands on. `tried` are other attempts of the same job that failed: nothing of theirs is proposed.

    `helped`: a second process may look through a large log (a scan's workers are many already).
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    tools = tools or Tools.load()
    engine = Engine(tools.book.rules, tools.detectors)
    kinds = (*readers.READERS, *tools.added.readers)
    given = Path(config) if config else None
    reading = readers.read(paths, literals=engine.literals, sieve=engine.sieve, config=given, readers=kinds, helped=helped)
    feed(engine, reading.stretches())
    judged = causes.judge(engine.findings())
    text = ConfigText(*reading.config_source) if reading.config_source else None
    planned = planner.plan(judged, engine.run, tools.book, strategy=strategy, gpu_memory_gib=gpu_memory_gib, config_text=text, tried=tried)
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
        contexts=context.around(_told(judged)),
        skipped=[SkippedView(reason, count, examples) for reason, (count, examples) in reading.skipped.reasons.items()],
    )
    return Examination(told, judged, engine.run)


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
        feed(engine, reading.stretches())
        text = ConfigText(*reading.config_source) if reading.config_source else None
        sources = _sources(reading)
    for fact in (*_machine(where, gpu_memory_gib, num_gpus), *facts_about(engine.run.config, Path(folder), where)):
        engine.feed(fact)
    feed(engine, forecast(engine.run, where))
    judged = causes.judge(engine.findings())
    planned = planner.plan(judged, engine.run, book, gpu_memory_gib=gpu_memory_gib, config_text=text)
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
        contexts=context.around(_told(judged)),
    )


def _told(judged: Sequence[causes.Judged]) -> Iterator[Where]:
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
