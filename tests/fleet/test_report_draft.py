"""`rules draft REPORT`: from the report of an unknown failure to a rule that passes examples and lints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from doctor.cli.main import main

UNKNOWN = """***** Running training *****
Traceback (most recent call last):
  File "/home/a/pour.py", line 9, in pour
    raise TeapotError(path)
TeapotError: the teapot at /srv/pot/3 is short and stout; please run `pip install teapot==2.0` first
"""
KNOWN = "ValueError: Undefined dataset mine in dataset_info.json.\n"


def report_of(text: str, folder: Path) -> Path:
    """The JSON report of a run with this console."""
    run = folder / "run"
    run.mkdir()
    (run / "console.log").write_text(text, encoding="utf-8")
    main(["analyze", str(run), "--format", "json", "-o", str(folder / "report.json")])
    return folder / "report.json"


def test_the_draft_of_an_unknown_failure_is_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pattern without values, three languages, the message's command as a remedy; `rules test` finds nothing wrong."""
    report = report_of(UNKNOWN, tmp_path)
    rules = tmp_path / "rules"
    assert main(["rules", "draft", str(report), "-o", str(rules)]) == 0
    (file,) = rules.glob("*/*.yaml")
    rule = yaml.safe_load(file.read_text(encoding="utf-8"))
    (pattern,) = rule["when"]["log_pattern"]["any_of"]
    assert "TeapotError: the teapot at" in pattern
    assert "/srv/pot" not in pattern
    assert [remedy.get("command") for remedy in rule["remedies"]] == ["pip install teapot==2.0"]
    assert set(rule["title"]) == set(rule["body"][0]) == {"en", "ko", "zh"}
    assert main(["rules", "test", str(rules)]) == 0
    assert "0 failed, 0 lints" in capsys.readouterr().out


def test_a_known_failure_needs_no_draft(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that explains its failure, and a file that is no report, are errors that say so."""
    report = report_of(KNOWN, tmp_path)
    assert main(["rules", "draft", str(report)]) == 2
    assert "data/dataset-not-registered explains it" in capsys.readouterr().err
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}', encoding="utf-8")
    assert main(["rules", "draft", str(other)]) == 2
    assert "no JSON report of lfdoctor" in capsys.readouterr().err
