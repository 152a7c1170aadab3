"""Everything people read, as they read it: a change of words or layout shows up in the diff of the snapshots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from syrupy.assertion import SnapshotAssertion

from doctor.report.model import Report
from doctor.reporters.base import Screen
from doctor.reporters.registry import REPORTERS
from doctor.support.languages import LANGUAGES
from tests.reporters import samples

REPORTS: dict[str, Callable[[str], Report]] = {
    "oom": samples.oom,
    "diverged": samples.diverged,
    "healthy": partial(samples.empty, completed=True),
    "end_unknown": samples.empty,
    "cause_unknown": partial(samples.empty, crashed=True),
}


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", ["terminal", "markdown", "json"])
@pytest.mark.parametrize("name", REPORTS)
def test_report_reads_as_before(name: str, kind: str, lang: str, snapshot: SnapshotAssertion) -> None:
    """Every kind of report in every format and language."""
    assert REPORTERS[kind](REPORTS[name](lang)) == snapshot


@pytest.mark.parametrize("screen", [Screen(color=True), Screen(unicode=False), Screen(width=48)], ids=["colour", "ascii", "narrow"])
def test_terminal_report_on_other_screens(screen: Screen, snapshot: SnapshotAssertion) -> None:
    """In colour, without Unicode, on a narrow screen."""
    assert REPORTERS["terminal"](samples.oom(), screen) == snapshot
