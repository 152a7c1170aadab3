"""Every recorded run of fixtures/ is read as expected.yaml says, and as tests/lab/scenarios.py declared before anything was analyzed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import doctor
from doctor.report.model import Report
from tests.expected import fixtures, summary
from tests.lab.scenarios import BY_NAME

FIXTURES = fixtures()
MACHINE = re.compile(rb"(?<!/home/user)/(?:work)/|/tmp/(?!torch)|/(?:root)/|\.pyenv|sitecustomize|site-packages/doctor")
LARGEST_BYTES = 180_000


@pytest.fixture(scope="module", params=[pytest.param(path, id=path.name) for path in FIXTURES])
def fixture(request: pytest.FixtureRequest) -> Path:
    """Each fixture in turn: all tests of one stand together, so that it is analyzed once."""
    return request.param


@pytest.fixture(scope="module")
def report(fixture: Path) -> Report:
    return doctor.analyze(fixture)


def test_a_fixture_is_diagnosed_as_recorded(fixture: Path, report: Report):
    """Findings, roles, ranks, patch and exit code equal expected.yaml (rewritten by `make expected`, reviewed as a diff)."""
    assert summary(report) == yaml.safe_load((fixture / "expected.yaml").read_text(encoding="utf-8"))


def test_reading_a_fixture_goes_without_problems(report: Report):
    """No detector fails and no source is damaged."""
    assert report.problems == []
    sources = [source for source in report.run.sources if Path(source.path).name != "expected.yaml"]
    assert [problem for source in sources for problem in source.problems] == []


def test_the_cause_is_the_one_that_was_put_in(fixture: Path, report: Report):
    """The lab knows what it broke: the root cause of a decidable failure is that, on the rank that failed first."""
    scenario = BY_NAME.get(fixture.name)
    if scenario is None:
        assert "Made by the project's lab" not in (fixture / "ORIGIN.md").read_text(encoding="utf-8")
        return
    assert scenario.status in (None, report.run.status)
    if scenario.cause is None or not scenario.decidable:
        return
    assert scenario.accepts(report.cause)
    root = next(one for one in report.findings if one.role == "root")
    if scenario.failing_rank is not None:
        assert root.ranks == [scenario.failing_rank]


@pytest.mark.parametrize("healthy", [pytest.param(path, id=path.name) for path in FIXTURES if path.name.startswith("healthy-")])
def test_a_healthy_run_is_left_in_peace(healthy: Path):
    """No finding above a note, no patch."""
    report = doctor.analyze(healthy)
    assert [one.rule for one in report.findings if one.severity != "note"] == []
    assert report.healthy
    assert report.patch is None


def test_a_fixture_is_small_and_names_no_machine(fixture: Path):
    """Fixtures hold no path of the machine that made them, and stay small."""
    files = [path for path in fixture.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
    assert [path.name for path in files if MACHINE.search(path.read_bytes())] == []
