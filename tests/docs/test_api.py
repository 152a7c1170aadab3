"""The Python API: the page's signatures are the program's, and every public name stands on it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import doctor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SIGNATURES = dict(re.findall(r"^(doctor\.[\w.]+)(\(.*)$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_of_the_page_are_current(name: str) -> None:
    """Names, defaults and what comes back; annotations of arguments are left to the reference below."""
    found: object = doctor
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    known = inspect.signature(found)  # type: ignore[arg-type]
    arguments = [one.replace(annotation=inspect.Parameter.empty) for one in known.parameters.values() if one.name != "self"]
    returned = str(known.return_annotation).strip("'")
    assert SIGNATURES[name] == f"{known.replace(parameters=arguments, return_annotation=inspect.Signature.empty)} -> {returned}"


def test_every_public_name_is_listed_and_described() -> None:
    """dir(doctor) is what is public, and each name stands on the page."""
    assert dir(doctor) == sorted(doctor.__all__)
    assert {"analyze", "check", "read", "estimate", "Report", "Run", "Estimate", "DoctorCallback", "DoctorError"} <= set(dir(doctor))
    for name in set(dir(doctor)) - {"__version__"}:
        assert getattr(doctor, name).__doc__
        assert re.search(rf"\b{name}\b", PAGE)
    assert len(SIGNATURES) >= 10


@pytest.mark.parametrize(
    ("name", "start"), [("r.html", "<!doctype html>"), ("r.md", "### "), ("r.json", "{"), ("r.sarif", "{"), ("r.txt", "✗")]
)
def test_a_report_saves_itself_by_the_suffix(name: str, start: str, tmp_path: Path) -> None:
    """The file is what the command line writes; its path comes back."""
    report = doctor.analyze(ROOT / "fixtures" / "template_missing_or_unknown-name")
    written = report.save(tmp_path / name)
    assert written == tmp_path / name
    assert written.read_text(encoding="utf-8").startswith(start)


def test_a_report_that_cannot_be_saved_says_why(tmp_path: Path) -> None:
    """An unknown suffix with the known ones; a folder that does not exist."""
    report = doctor.analyze(ROOT / "fixtures" / "template_missing_or_unknown-name")
    with pytest.raises(doctor.DoctorError, match=r"ends with \.html, \.md"):
        report.save(tmp_path / "report.pdf")
    with pytest.raises(doctor.DoctorError, match="cannot write"):
        report.save(tmp_path / "none" / "report.md")


def test_a_run_is_read_without_a_diagnosis() -> None:
    """Config, last step and series of the files, as numbers."""
    run = doctor.read(ROOT / "fixtures" / "lr_too_high-lora")
    assert run.config["learning_rate"] == 0.3
    assert run.last_step == 60
    assert run.series["loss"].values[0] == pytest.approx(2.6397, abs=1e-4)
    pytest.importorskip("pandas")
    assert run.frame()["learning_rate"].iloc[0] == 0.3
