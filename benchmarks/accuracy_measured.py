"""What benchmarks/accuracy.py measures itself, from this checkout alone and within about a minute: counts, no times."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import curve_data
import curves
import simulated_patches

import doctor
from doctor.config import yaml_edit
from doctor.config.schema import schema
from doctor.core.events import Step
from doctor.report.model import Report
from tests.expected import fixtures, summary
from tests.lab.scenarios import BY_NAME
from tests.live.healthy.first import FIRST
from tests.live.healthy.harm import harm
from tests.live.healthy.second import SECOND

ROOT = Path(__file__).resolve().parent.parent
EACH = 3
"""Failures that are played on a configuration."""
SCHEMA_VERSION = "0.9.5"
"""The LLaMA-Factory whose JSON Schema patches are held to; the lab's."""


@dataclass(frozen=True)
class Share:
    """A counted line of the page: a text of the catalogue's `measured`, and the part that it is about."""

    text: str
    count: int
    of: int
    part: str = ""


def measured() -> list[Share]:
    """All lines, in the page's order."""
    reports = {path: doctor.analyze(path) for path in fixtures()}
    return [*of_fixtures(reports), *of_patches(reports), *of_healthy(), *of_changes(), *of_simulated(), of_lab()]


def of_fixtures(reports: Mapping[Path, Report]) -> Iterator[Share]:
    """The causes of the lab's fixtures against what it declares to have put in; status and exit code; healthy ones."""
    declared = [(BY_NAME[path.name], report) for path, report in reports.items() if path.name in BY_NAME]
    failed = [(scenario, report.cause) for scenario, report in declared if scenario.cause is not None]
    yield _share("fixtures_cause", (scenario.accepts(cause) for scenario, cause in failed if scenario.decidable))
    yield _share("fixtures_open", (cause is None or scenario.accepts(cause) for scenario, cause in failed if not scenario.decidable))
    yield _share("fixtures_status", (_as_reviewed(path, report) for path, report in reports.items()))
    healthy = [report for path, report in reports.items() if path.name.startswith("healthy-")]
    yield _share("healthy_fixtures", (any(one.severity != "note" for one in report.findings) for report in healthy))


def _as_reviewed(path: Path, report: Report) -> bool:
    expected, now = yaml.safe_load((path / "expected.yaml").read_text(encoding="utf-8")), summary(report)
    return all(now[name] == expected[name] for name in ("status", "exit_code"))


def of_patches(reports: Mapping[Path, Report]) -> Iterator[Share]:
    """The patched configurations of the fixtures, held to schema and `check` beside the ones before."""
    pairs = [(path, report.patch) for path, report in reports.items() if report.patch is not None and report.patch.yaml]
    yield _share("fixtures_patch", (accepted(str(patch.yaml), _text(Path(str(patch.source))), path) for path, patch in pairs))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def accepted(after: str, before: str, folder: Path) -> bool:
    """Whether schema and `check` find no error in the patched configuration that they do not find in the one before."""
    return not errors(after, folder) - (errors(before, folder) if before.strip() else set())


def errors(text: str, folder: Path) -> set[str]:
    """What the JSON Schema (place and keyword) and `lfdoctor check` (rule) call an error in a configuration."""
    config: dict[str, Any] = {**yaml_edit.load(text)}
    told = {f"{list(one.absolute_path)} {one.validator}" for one in _validator().iter_errors(config)}
    checked = doctor.check(config, folder=folder, llamafactory_version=SCHEMA_VERSION)
    return told | {one.rule for one in checked.findings if one.severity == "error"}


@cache
def _validator() -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(schema(SCHEMA_VERSION))


@cache
def healthy_curves() -> list[curve_data.Curve]:
    """The generated healthy curves as logged ones; the label says that every alarm on them is a nuisance."""
    made = {name: shape(random.Random(name)) for name, shape in (FIRST | SECOND).items()}
    label = [{"label": "healthy", "confidence": "sure"}]
    return [
        curve_data.Curve(
            name,
            "generated",
            [Step(where=curve_data.HERE, step=at * one.every, metrics=dict(log)) for at, log in enumerate(one.logs, 1)],
            label,
        )
        for name, one in made.items()
    ]


def of_healthy() -> Iterator[Share]:
    """What is done to generated healthy curves."""
    results = [harm(shape(random.Random(name))) for name, shape in (FIRST | SECOND).items()]
    yield _share("healthy_stopped", (one.stopped is not None or one.restarted or one.error for one in results))
    yield _share("healthy_warned", (any(not name.startswith(("!", "live:")) for name in one.told) for one in results))


def of_changes() -> Iterator[Share]:
    """The shipped loss detectors on the generated curves, and on seeded changes of those without an alarm."""
    made = curve_data.trials(healthy_curves())
    found = curve_data.score(curves.ours(), healthy_curves(), made)
    yield Share("healthy_alarm", len(found.nuisance), found.benign)
    for kind in curve_data.KINDS:
        yield Share("change", found.hits[kind], found.trials[kind], kind)


def of_simulated() -> Iterator[Share]:
    """Failures played on the configurations of the healthy fixtures and of the one that `make demo` shows."""
    chance = random.Random(1)
    plans = [simulated_patches.planned(one) for name, text in configs() for one in _failures(name, text, chance)]
    patched = [one for one in plans if one.report.patch is not None and one.report.patch.yaml]
    yield _share("simulated_patch", (accepted(str(_yaml(one)), one.played.text, ROOT / "fixtures") for one in patched))
    yield _share("simulated_batch", (not simulated_patches.batch_moved(one) for one in patched))


def _failures(name: str, text: str, chance: random.Random) -> list[simulated_patches.Played]:
    return list(simulated_patches.failures_of(name, {**yaml_edit.load(text)}, text, EACH, chance))


def _yaml(one: simulated_patches.Planned) -> str | None:
    return one.report.patch.yaml if one.report.patch else None


def configs() -> list[tuple[str, str]]:
    """Name and text of the training configurations that failures are played on."""
    demo = (ROOT / "fixtures" / "DEMO").read_text(encoding="utf-8").strip()
    names = [*(path.name for path in fixtures() if path.name.startswith("healthy-")), demo]
    found = [(name, _text(ROOT / "fixtures" / name / "train.yaml")) for name in names]
    return [(name, text) for name, text in found if "do_train: true" in text]


def of_lab() -> Share:
    """What tests/lab/cures.py wrote last."""
    page = (ROOT / "docs" / "cures.md").read_text(encoding="utf-8")
    told = re.search(r"^(\d+) of (\d+) faults cured\.$", page, re.MULTILINE)
    if told is None:
        raise ValueError("docs/cures.md does not say how many faults were cured")
    return Share("cures", int(told[1]), int(told[2]))


def _share(text: str, outcomes: Iterable[bool]) -> Share:
    counted = list(outcomes)
    return Share(text, sum(counted), len(counted))
