"""analyze(path) and check(config): read, detect, find the cause, plan, report. The whole program on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from doctor import causes, planner, plugins, readers, report, rulebook
from doctor.detectors import DETECTORS
from doctor.engine import Engine
from doctor.events import ConfigSeen, Event, Fact, Where
from doctor.options import effective
from doctor.planner import ConfigText, Strategy
from doctor.report import Report, SkippedView, SourceView
from doctor.run import Run
from doctor.surroundings import facts_about


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
    paths = [path] if isinstance(path, str | Path) else list(path)
    added = plugins.load()
    detectors = {**added.detectors, **DETECTORS}
    book = rulebook.load(added.rules, detectors=detectors if added.rules else None)
    engine = Engine(book.rules, detectors)
    kinds = (*readers.READERS, *added.readers)
    reading = readers.read(paths, literals=engine.literals, config=Path(config) if config else None, readers=kinds)
    feed(engine, reading.events())
    judged = causes.judge(engine.findings())
    text = ConfigText(*reading.config_source) if reading.config_source else None
    planned = planner.plan(judged, engine.run, book, strategy=strategy, gpu_memory_gib=gpu_memory_gib, config_text=text)
    return report.build(
        judged,
        planned,
        engine.run,
        engine.blind(),
        _sources(reading),
        book=book,
        path=reading.root,
        lang=lang,
        problems=[*added.problems, *engine.problems],
        skipped=[SkippedView(reason, count, examples) for reason, (count, examples) in reading.skipped.reasons.items()],
    )


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
    added = plugins.load()
    detectors = {**added.detectors, **DETECTORS}
    book = rulebook.load(added.rules, detectors=detectors if added.rules else None)
    engine = Engine((rule for rule in book.rules if getattr(detectors[rule.detector], "needs", ()) == ("config",)), detectors)
    sources: list[SourceView] = []
    text = None
    if isinstance(config, Mapping):
        where = Where("config")
        engine.feed(ConfigSeen(where=where, values=dict(config)))
    else:
        where = Where(str(config))
        reading = readers.read([], config=Path(config))
        feed(engine, reading.events())
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
    )


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


def feed(engine: Engine, events: Iterable[Event]) -> None:
    """All events of a reading into the engine."""
    for event in events:
        engine.feed(event)
