"""Rules of one's own (`--rules`), a checkout's rules against another install, what a shell completes, and a Slurm job's number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.cli.main import main
from doctor.rulebook import loader
from doctor.support import package_files

ROOT = Path(__file__).parents[2]
RULE = """
id: data/my-symptom
cause: dataset_json_malformed
symptom: data
severity: error
status: trial
when: {log_pattern: {contains: [the moon is wrong], any_of: ["the moon is wrong"]}}
title: {en: The moon is wrong, ko: 달이 잘못되었습니다, zh: 月亮不对}
body: [{en: "It is.", ko: "그렇습니다.", zh: "确实。"}]
remedies: [{id: wait, text: {en: "Wait.", ko: "기다리세요.", zh: "请等待。"}, effect: manual}]
examples: {match: [{line: "ValueError: the moon is wrong"}], no_match: [{line: "the moon"}]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one rule, and a log that only this rule knows."""
    monkeypatch.setenv("LFDOCTOR_RULES", "")  # so that what the option sets is taken back
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "my-symptom.yaml").write_text(RULE, encoding="utf-8")
    log = "***** Running training *****\nTraceback (most recent call last):\nValueError: the moon is wrong\n"
    (tmp_path / "train.log").write_text(log, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


def found(capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    """The rules that analyze finds in the log."""
    assert main(["analyze", "train.log", "--format", "json", "--exit-zero", *more]) == 0
    return [finding["rule"] for finding in json.loads(capsys.readouterr().out)["findings"]]


def test_a_rule_of_ones_own_is_read(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --rules only; a process that is started from there inherits it."""
    assert "data/my-symptom" not in found(capsys)
    assert "data/my-symptom" in found(capsys, "--rules", str(own))
    assert os.environ["LFDOCTOR_RULES"] == str(own)
    done = subprocess.run(
        [sys.executable, "-m", "doctor", "analyze", "train.log", "--format", "concise", "--exit-zero"], capture_output=True, text=True
    )
    assert "The moon is wrong" in done.stdout


def test_a_folder_without_rules_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option says where rules belong; a variable that names no folder is a problem of the report."""
    assert main(["analyze", "train.log", "--rules", str(own / "data")]) == 2
    assert "FAMILY/NAME.yaml" in capsys.readouterr().err
    os.environ["LFDOCTOR_RULES"] = "nowhere"
    main(["analyze", "train.log", "--format", "json", "--exit-zero"])
    assert "LFDOCTOR_RULES: nowhere: no such folder" in json.loads(capsys.readouterr().out)["problems"]


def test_a_checkout_is_tested_against_another_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole rulebook takes the place of the installed one: its rules are not taken ids, and its own failures are told."""
    checkout = tmp_path / "rules"
    shutil.copytree(package_files.rules_folder(), checkout)
    for family in [folder for folder in checkout.iterdir() if folder.is_dir() and folder.name != "stability"]:
        shutil.rmtree(family)
    rule = checkout / "stability" / "nonfinite.yaml"
    rule.write_text(rule.read_text(encoding="utf-8").replace("severity: error", "severity: warning", 1), encoding="utf-8")
    assert main(["rules", "test", str(checkout)]) in (0, 1)  # parents in other families may be missing
    told = capsys.readouterr()
    assert "is taken already" not in told.err
    assert f"{len(list((checkout / 'stability').glob('*.yaml')))} rules" in told.out
    (nonfinite,) = [rule for rule in loader.load([checkout]).rules if rule.id == "stability/nonfinite"]
    assert nonfinite.severity == "warning"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lfdoctor analyze --format m", {"markdown"}),
        ("lfdoctor analyze --lang ", {"en", "ko", "zh"}),
        ("lfdoctor analyze --strategy g", {"guide"}),
        ("lfdoctor check --fail-on w", {"warning"}),
        ("lfdoctor rules list --family mem", {"memory"}),
        ("lfdoctor explain memory/gpu-oom-log", {"memory/gpu-oom-logits"}),
        ("lfdoctor explain cutoff", {"cutoff_len"}),
    ],
)
def test_a_shell_completes_values(typed: str, offered: set[str]) -> None:
    """As bash asks for it."""
    words = typed.split(" ")
    variables = {"_LFDOCTOR_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; sys.argv[0] = 'lfdoctor'; from doctor.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True)
    assert set(done.stdout.split()) == offered, done.stderr


def test_a_jobs_number_names_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the script called them; neither a longer number nor another task of the array; a path of that name comes first."""
    shutil.copy(ROOT / "fixtures" / "template_missing_or_unknown-name" / "console.log", tmp_path / "console.log")
    (tmp_path / "logs").mkdir()
    for name in ("slurm-4711.out", "slurm-14711.out", "slurm-4711_2.out", "x4711.safetensors"):
        (tmp_path / "logs" / name).write_text("hello\n", encoding="utf-8")
    shutil.copy(tmp_path / "console.log", tmp_path / "logs" / "train_4711.err")
    monkeypatch.chdir(tmp_path)
    main(["analyze", "4711", "--format", "json", "--exit-zero"])
    report = json.loads(capsys.readouterr().out)
    assert report["cause"] == "template_missing_or_unknown"
    assert {Path(source["path"]).name for source in report["run"]["sources"]} == {"slurm-4711.out", "train_4711.err"}
    assert main(["analyze", "4712"]) == 3
    assert "slurm-4712.out" in capsys.readouterr().err
    shutil.copy(tmp_path / "console.log", tmp_path / "4712")
    main(["analyze", "4712", "--format", "json", "--exit-zero"])
    assert json.loads(capsys.readouterr().out)["cause"] == "template_missing_or_unknown"
