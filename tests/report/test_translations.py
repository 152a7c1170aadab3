"""A report carries its sentences in every language, and turns from one into another without a loss."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import doctor
from doctor.report.translations import translated
from doctor.reporters.json import parse, render, settled
from doctor.support.languages import LANGUAGES

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.mark.parametrize("name", ["gpu_oom_activations-forward", "lr_too_high-full", "healthy-sft", "data-error-rank1"])
def test_a_report_turned_into_another_language_is_the_one_written_in_it(name: str) -> None:
    """For every pair of languages: sentences, guide titles, reasons, notes and the fixes of similar issues."""
    written = {lang: settled(doctor.analyze(FIXTURES / name, lang=lang)) for lang in LANGUAGES}
    for lang in LANGUAGES:
        for other in LANGUAGES:
            assert render(translated(written[lang], other)) == render(written[other])


def test_a_language_that_a_report_does_not_carry_changes_only_the_fixed_words() -> None:
    """An older report stays readable."""
    old = msgspec.structs.replace(doctor.analyze(FIXTURES / "healthy-sft"), translations={})
    assert translated(old, "ko") == msgspec.structs.replace(old, lang="ko")


def test_places_that_lead_nowhere_are_left() -> None:
    """A translation of a report from elsewhere cannot break it, nor put text where there was none."""
    report = doctor.analyze(FIXTURES / "lr_too_high-full")
    wild = {"ko": {"findings.99.title": "x", "run.steps.first": "y", "nothing.at.all": "z", "findings": "w", "problems.0": "v"}}
    told = translated(parse(render(msgspec.structs.replace(report, translations=wild))), "ko")
    assert told.findings[0].title == report.findings[0].title
    assert told.run.steps == report.run.steps
