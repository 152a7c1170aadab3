"""check(config): a training configuration before it is run: what will be refused, what is in its way on disk, whether it fits.

Apart from `pipeline.py`, whose readers and detectors of logs cost more to import than the check of a configuration takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.config.options import effective
from doctor.config.preflight import facts_about
from doctor.config.values import bounded
from doctor.core.events import ConfigSeen, Event, Fact, Step, Where
from doctor.core.run import Run
from doctor.diagnosis import causes
from doctor.diagnosis.data_lengths import MayRead, everything, lengths_of
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.feeding import evidence_places, feed, given_version, views_of
from doctor.diagnosis.tools import Tools
from doctor.diagnosis.verdict import verdict
from doctor.planner import plan
from doctor.planner.config_fixes import fixed_by
from doctor.planner.plan import ConfigText
from doctor.readers.command import is_script, named_config
from doctor.readers.config_yaml import facts_of_web_ui
from doctor.readers.given_config import GivenConfig
from doctor.report import context
from doctor.report.build import Diagnosis, build
from doctor.report.model import Report
from doctor.rulebook.findings import UncheckedRule
from doctor.rulebook.model import Rule

if TYPE_CHECKING:
    from doctor.readers.file import Source


def check(
    config: str | Path | Mapping[str, Any],
    *,
    folder: str | Path = ".",
    gpu_memory_gib: float | None = None,
    num_gpus: int | None = None,
    llamafactory_version: str | None = None,
    lang: str = "en",
    may_read: MayRead | None = None,
) -> Report:
    """A training configuration before it is run: what LLaMA-Factory will refuse or fail on, what is in its way on disk, whether it fits.

    `config` may be a launch script (.sh, Slurm, Makefile): then the YAML that it names is checked with what the command overrides.
    `folder` is where the training will be started (paths in the config are relative to it). `llamafactory_version` is a release of
    LLaMA-Factory or `main`; without it an error is what every version of the last year refuses. Raises DoctorError (2) for a file that
    cannot be read.
    """
    tools = Tools.for_configs()
    engine = Engine((rule for rule in tools.book.rules if _asks_config_only(tools.detectors.get(rule.detector))), tools.detectors)
    feed(engine, given_version(llamafactory_version))
    sources: list[Source] = []
    text = None
    if isinstance(config, Mapping):
        where = Where("config")
        engine.feed(ConfigSeen(where=where, values=bounded(dict(config))))
    else:
        where = Where(str(config))
        events, text, sources = _read(Path(config), Path(folder))
        feed(engine, events)
        feed(engine, facts_of_web_ui(Path(config)))
    for fact in (*_given_machine(where, gpu_memory_gib, num_gpus), *facts_about(engine.run.config, Path(folder), where)):
        engine.feed(fact)
    feed(engine, lengths_of(engine.run, Path(folder), where, may_read or everything))
    predicted, missing = forecast(engine.run, where, Path(folder))
    feed(engine, predicted)
    ranked = causes.assign_roles(engine.findings())
    planned = plan.plan(ranked, engine.run, tools.book, gpu_memory_gib=gpu_memory_gib, config_text=text)
    diagnosis = Diagnosis(
        kind="check",
        path=str(where),
        run=engine.run,
        ranked=ranked,
        plan=planned,
        status="unknown",  # nothing ran yet: a refused config is no failed run
        verdict=verdict("check", "unknown", ranked, engine.run),
        unchecked=[*engine.blind(), *(UncheckedRule(rule, missing) for rule in engine.rules if missing and _asks_forecast(rule))],
        sources=views_of(sources),
        contexts=context.around(evidence_places(ranked)),
        problems=[*tools.added.problems, *engine.problems],
        rules=len(engine.rules),
        fixed_by=fixed_by(text, planned.patch.patch, engine.run.facts)
        if text and planned.patch and planned.patch.yaml is not None
        else None,
    )
    return build(diagnosis, tools.book, lang)


def _read(path: Path, folder: Path) -> tuple[Iterable[Event | list[Step]], ConfigText | None, list[Source]]:
    """The events of a configuration or a launch script, the YAML that can be patched, and the files. Raises DoctorError (2)."""
    if is_script(path):
        from doctor.readers import reading as readers  # every format: what a script names beside the YAML

        reading = readers.read([path], config=named_config(path, folder))
        return reading.batches(), ConfigText(*reading.config_source) if reading.config_source else None, reading.sources
    given = GivenConfig(path)
    chosen = given.choose()
    return chosen.before_run(), ConfigText(*chosen.yaml) if chosen.yaml else None, [given.source]


def forecast(run: Run, where: Where, folder: Path) -> tuple[list[Fact], str | None]:
    """The memory estimate of the run's config as facts (forecast_verdict, ...), and what is missing for a verdict, if anything.

    Missing is `model_name`, `model_size.NAME`, or `gpu_memory.GIB` with the memory that the training needs (words/report.yaml).
    """
    from doctor.memory.estimate import estimate
    from doctor.memory.shapes import UnknownShape

    name = run.config.get("model_name_or_path")
    try:
        predicted = estimate(effective(run.config), facts={"config.folder": str(folder), **run.facts})
    except UnknownShape:
        return [], f"model_size.{name}" if name else "model_name"
    values = ((part, getattr(predicted, part)) for part in _FORECAST)
    facts = [Fact(where=where, name=f"forecast_{part}", value=value) for part, value in values if value is not None]
    return facts, f"gpu_memory.{predicted.device_gib:.0f}" if predicted.capacity_gib is None else None


_FORECAST = ("allocated_gib", "low_gib", "high_gib", "capacity_gib", "peak_phase", "verdict")
"""Fields of the estimate that rules ask for."""


def _asks_forecast(rule: Rule) -> bool:
    return rule.detector == "fact" and rule.params.get("name") == "forecast_verdict"


def _asks_config_only(detector: Any) -> bool:
    return getattr(detector, "needs", ()) == ("config",)


def _given_machine(where: Where, gpu_memory_gib: float | None, num_gpus: int | None) -> Iterator[Fact]:
    """What the user says of the machine, as the facts that a run would print."""
    if gpu_memory_gib is not None:
        yield Fact(where=where, name="gpu.total_gib", value=gpu_memory_gib)
    if num_gpus is not None:
        yield Fact(where=where, name="world_size", value=num_gpus)
