"""The classifier's opinions in a report: possible causes where it is unsure, the cause as "likely" where it is sure."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

import doctor
from doctor.diagnosis.unlisted import learned
from doctor.diagnosis.unlisted.classifier import LIKELY, NAMED, Opinion
from doctor.report.model import Report
from doctor.reporters.registry import REPORTERS
from doctor.rulebook.reliability import Record, Reliability

TEXT = (
    'Traceback (most recent call last):\n  File "/opt/venv/lib/python3.11/site-packages/transformers/trainer.py", line 90, in _weigh\n'
    "RuntimeError: the balance is off"
)
UNSURE = [Opinion("disk_full", 0.52, ("balance is off", "weigh")), Opinion("shm_too_small", 0.2, ()), Opinion("port_in_use", 0.1, ("off",))]


def analysed(folder: Path, lang: str = "en", text: str = TEXT) -> Report:
    (folder / "console.log").write_text(text + "\n", encoding="utf-8")
    return doctor.analyze(folder, lang=lang)


def says(monkeypatch: pytest.MonkeyPatch, opinions: list[Opinion]) -> None:
    monkeypatch.setattr(learned, "opinions_on", lambda *_: opinions)


def test_below_likely_the_cause_stays_unknown_and_candidates_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three candidates with title, probability, reasons and what would confirm them; the report names no cause."""
    says(monkeypatch, UNSURE)
    found = analysed(tmp_path).findings[0]
    assert (found.cause, found.rule) == (None, "environment/unknown-exception")
    assert [(one.cause, one.probability) for one in found.candidates] == [("disk_full", 0.52), ("shm_too_small", 0.2), ("port_in_use", 0.1)]
    first = found.candidates[0]
    assert first.title == "The disk is full, or a quota is used up"
    assert first.reasons == ["balance is off", "weigh"]
    assert "df -h" in first.check


def test_a_sure_opinion_is_told_as_likely_with_its_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the cause's title and family; the sentence says that no rule lists it; the check comes first."""
    says(monkeypatch, [Opinion("disk_full", LIKELY, ("balance is off",)), Opinion("shm_too_small", 0.05)])
    found = analysed(tmp_path).findings[0]
    assert (found.cause, found.family, found.rule, found.role) == ("disk_full", "memory", "memory/learned", "root")
    assert 0.7 <= found.confidence < 0.9
    assert found.title == "The disk is full, or a quota is used up"
    assert "No rule lists it" in found.text
    assert "`balance is off`" in found.text
    assert found.remedies[0].id == "confirm"
    assert "df -h" in found.remedies[0].text
    assert found.candidates == []


def test_nothing_is_asked_where_a_rule_knows_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose failure is listed pays nothing."""

    def fail(*_: object) -> list[Opinion]:
        raise AssertionError

    monkeypatch.setattr(learned, "opinions_on", fail)
    found = analysed(tmp_path, text="OSError: [Errno 28] No space left on device").findings[0]
    assert found.cause == "disk_full"
    assert found.candidates == []


ROW = "OSError: [Errno 70] Communication error on send: '/nfs/cache/datasets/json/default-1/0.0.0/1.incomplete'"
"""A failure of which the decision table says that its cause is possible (cache-on-shared-disk)."""
RECORDS = Reliability(
    failures=100,
    repositories=9,
    kinds={"possible agreed": Record(38, 40), "possible disagreed": Record(24, 40), "possible alone": Record(9, 12)},
    rows={"environment/cache-on-shared-disk": Record(3, 4)},
)


def test_an_opinion_that_agrees_with_the_table_makes_its_cause_likely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """38 of 40 such conclusions were right; without an opinion 9 of 12 were; never is one almost certain."""
    monkeypatch.setattr(learned, "reliability", lambda: RECORDS)
    says(monkeypatch, [Opinion("shared_cache_race", 0.6), Opinion("disk_full", 0.2)])
    agreed = analysed(tmp_path, text=ROW).findings[0]
    assert (agreed.cause, agreed.candidates) == ("shared_cache_race", [])
    assert 0.85 <= agreed.confidence < 0.9
    says(monkeypatch, [])
    alone = analysed(tmp_path, text=ROW).findings[0]
    assert 0.65 <= alone.confidence < agreed.confidence


def test_an_opinion_that_contradicts_lowers_the_confidence_and_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 of 40 such conclusions were right: possible, with the other cause beside it."""
    monkeypatch.setattr(learned, "reliability", lambda: RECORDS)
    says(monkeypatch, [Opinion("disk_full", 0.7), Opinion("port_in_use", 0.1)])
    found = analysed(tmp_path, text=ROW).findings[0]
    assert found.cause == "shared_cache_race"
    assert 0.5 <= found.confidence < 0.7
    assert [one.cause for one in found.candidates] == ["disk_full", "port_in_use"]


def test_a_conclusion_with_a_bad_record_is_but_a_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that was wrong in nine of ten, against the classifier: the failure is unknown, both causes are shown, the likelier first."""
    bad = msgspec.structs.replace(RECORDS, rows={"environment/cache-on-shared-disk": Record(2, 20)})
    monkeypatch.setattr(learned, "reliability", lambda: bad)
    says(monkeypatch, [Opinion("disk_full", 0.7)])
    found = analysed(tmp_path, text=f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n{ROW}').findings[0]
    assert (found.cause, found.rule) == (None, "environment/unknown-exception")
    assert [one.cause for one in found.candidates] == ["disk_full", "shared_cache_race"]
    assert found.title.startswith("OSError: [Errno 70]")


@pytest.mark.parametrize(("probability", "word"), [(NAMED, 0.55), (LIKELY, 0.75)])
def test_the_surer_the_opinion_the_surer_the_word(probability: float, word: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From NAMED on the cause is told as possible, with the others beside it; from LIKELY on as likely."""
    says(monkeypatch, [Opinion("disk_full", probability), Opinion("port_in_use", 0.05)])
    found = analysed(tmp_path).findings[0]
    assert (found.cause, found.confidence) == ("disk_full", word)
    assert [one.cause for one in found.candidates] == (["port_in_use"] if probability < LIKELY else [])


def test_no_opinion_leaves_the_report_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An abstaining classifier adds neither a cause nor a section."""
    says(monkeypatch, [])
    report = analysed(tmp_path)
    assert report.findings[0].candidates == []
    assert "Possible causes" not in REPORTERS["markdown"](report)


@pytest.mark.parametrize(
    ("lang", "heading", "title"),
    [
        ("en", "Possible causes", "The disk is full, or a quota is used up"),
        ("ko", "가능한 원인", "디스크가 가득 찼거나 할당량을 다 썼습니다"),
        ("zh", "可能的原因", "磁盘已满，或配额用尽"),
    ],
)
@pytest.mark.parametrize("form", ["terminal", "markdown", "html"])
def test_formats_for_people_show_the_candidates(
    form: str, lang: str, heading: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heading, title, the quoted words that speak for it, what would confirm it."""
    says(monkeypatch, UNSURE)
    text = REPORTERS[form](analysed(tmp_path, lang))
    shown = " ".join(text.replace("│", " ").split())
    assert heading in shown
    assert title.replace(" ", "") in shown.replace(" ", "")
    assert "balance is off" in shown
    assert "df -h" in shown


def test_formats_for_programs_hold_the_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has all of each, in the report's language with translations; SARIF causes and probabilities."""
    says(monkeypatch, UNSURE)
    report = analysed(tmp_path)
    found = json.loads(REPORTERS["json"](report))["findings"][0]["candidates"][0]
    assert set(found) == {"cause", "probability", "title", "reasons", "check"}
    assert report.translations["ko"]["findings.0.candidates.0.title"] == "디스크가 가득 찼거나 할당량을 다 썼습니다"
    result = json.loads(REPORTERS["sarif"](report))["runs"][0]["results"][0]
    assert result["properties"]["candidates"] == {"disk_full": 0.52, "shm_too_small": 0.2, "port_in_use": 0.1}
