"""The examples in the help of each command run as they stand, and the small commands for every day do what they say."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doctor.cli.examples import EXAMPLES
from doctor.cli.main import app, main
from tests.docs.test_commands import served, workplace

__all__ = ["workplace"]
FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_every_command_has_examples_in_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """On lines of their own at the end of --help."""
    names = {command.name for command in app.registered_commands}
    assert names <= EXAMPLES.keys()
    for name in names:
        assert main([str(name), "--help"]) == 0
        page = capsys.readouterr().out
        tail = page.partition("Examples:\n")[2]
        assert [line.strip() for line in tail.splitlines()] == list(EXAMPLES[str(name)])


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run(name: str, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with failed runs, configs and a saved report: 0, or 1 where findings are told."""
    monkeypatch.setenv("HOME", str(workplace))
    for line in EXAMPLES[name]:
        words = shlex.split(line.partition("&&")[0])[1:]
        code = served(words) if words[0] == "mcp" else main(words)
        assert code in (0, 1), f"{line}: {capsys.readouterr().err}"
        if "--exit-zero" in words:
            assert code == 0
            assert (workplace / "new.yaml").is_file()


def test_last_takes_the_run_that_changed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the names; it says on stderr which one it took."""
    for place, fixture in (("a/new", "lr_too_high-lora"), ("z/old", "template_missing_or_unknown-name")):
        shutil.copytree(FIXTURES / fixture, tmp_path / place, ignore=shutil.ignore_patterns("expected.yaml", "ORIGIN.md"))
    for place, age in (("a", 0), ("z", 9000)):
        for file in (tmp_path / place).rglob("*"):
            os.utime(file, (time.time() - age, time.time() - age))
    monkeypatch.chdir(tmp_path)
    assert main(["last", "--format", "json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["cause"] == "lr_too_high"
    assert "a/new" in err
    assert main(["last", "z", "--exit-zero", "--format", "concise"]) == 0
    assert "config/template-unknown-error" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["last", "empty"]) == 3
    assert "lfdoctor last FOLDER" in capsys.readouterr().err


def test_exit_zero_hides_findings_not_errors_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Findings give 0, a folder that does not exist still 3, an unknown format still 2 with the nearest one."""
    run = str(FIXTURES / "template_missing_or_unknown-name")
    assert main(["analyze", run]) == 1
    assert main(["analyze", run, "--exit-zero"]) == 0
    assert main(["analyze", "/there/is/none", "--exit-zero"]) == 3
    capsys.readouterr()
    assert main(["analyze", run, "--format", "consise", "--exit-zero"]) == 2
    assert "Did you mean concise?" in capsys.readouterr().err


def test_a_written_report_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with the file's name; standard output stays empty."""
    target = tmp_path / "r.md"
    main(["analyze", str(FIXTURES / "template_missing_or_unknown-name"), "-f", "markdown", "-o", str(target), "--exit-zero"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"lfdoctor: report written to {target}\n"


def test_concise_is_a_line_a_finding_with_values(capsys: pytest.CaptureFixture[str]) -> None:
    """`file:line: severity rule: title [values]`; a run without findings has its verdict."""
    main(["analyze", str(FIXTURES / "lr_too_high-lora"), "-f", "concise"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"{FIXTURES}/lr_too_high-lora/run/trainer_log.jsonl:2: error stability/divergence-lr-too-high: "
        "The loss diverges: the learning rate is far too high [learning_rate: 0.3 → 0.0001]"
    )
    assert second == f"{FIXTURES}/lr_too_high-lora/train.yaml:2: note speed/runs-on-cpu: The training runs on the CPU"
    main(["analyze", str(FIXTURES / "healthy-dpo"), "-f", "concise"])
    assert capsys.readouterr().out.startswith(f"{FIXTURES}/healthy-dpo: healthy: No problem found.\n")


def test_github_annotations_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas and colons of a path, line breaks and per cent signs of a message: one line each, as the runner decodes them."""
    monkeypatch.chdir(tmp_path)
    config = Path("a,b%.yaml")
    shutil.copy(FIXTURES / "config-unknown-key" / "train.yaml", config)
    assert main(["check", str(config), "-f", "github"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::error file=a%2Cb%25.yaml,line=30,title=Unknown option learning_rates::")
    assert "%0A" in lines[0]
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines)


def test_json_has_one_language_unless_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`show` of such a report in another language says how to get it, and shows it in its own."""
    run = str(FIXTURES / "template_missing_or_unknown-name")
    assert main(["analyze", run, "-f", "json", "--exit-zero", "--lang", "ko"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told)["translations"] == {}
    assert main(["analyze", run, "-f", "json", "--exit-zero", "--translations"]) == 0
    assert json.loads(capsys.readouterr().out)["translations"].keys() == {"ko", "zh"}
    saved = tmp_path / "r.json"
    saved.write_text(told, encoding="utf-8")
    assert main(["show", str(saved), "--lang", "zh"]) == 0
    out, err = capsys.readouterr()
    assert "--translations" in err
    assert "다음에 할 일" in out


def test_the_shell_completes_commands() -> None:
    """typer's completion, as bash asks for it."""
    asked = {"_LFDOCTOR_COMPLETE": "complete_bash", "COMP_WORDS": "lfdoctor ana", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "doctor"], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["analyze"]


def test_the_skill_is_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In the format of agent skills: a front matter with name and description, then Markdown; every command in it exists."""
    import re

    import yaml

    monkeypatch.chdir(tmp_path)
    assert main(["skill", "install"]) == 0
    text = (tmp_path / ".claude" / "skills" / "lfdoctor" / "SKILL.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["skill", "show"]) == 0
    assert capsys.readouterr().out == text
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["name"] == "lfdoctor"
    assert 100 < len(front["description"]) <= 1024
    assert body.count("\n") < 100
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert set(re.findall(r"`lfdoctor ([a-z]+)", body)) <= names
    assert main(["skill", "install", "other"]) == 0
    assert (tmp_path / "other" / "lfdoctor" / "SKILL.md").is_file()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["rules", "list", "--family", "memry"], 2, ["--family is one of config, data", "Did you mean memory?"]),
        (["analyze", "EMPTY"], 3, ["EMPTY: found nothing", "Give the run's output_dir, its console log"]),
        (["check", "train.yaml", "--fail-on", "errors"], 2, ["error, warning, never", "Did you mean error?"]),
        (["last", "EMPTY/none"], 3, ["EMPTY/none: no such folder", "such as saves"]),
    ],
)
def test_errors_name_the_thing_the_legal_values_and_the_next_step(
    words: list[str], code: int, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error."""
    monkeypatch.chdir(tmp_path)
    Path("EMPTY").mkdir()
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert [piece for piece in told if piece not in err] == []


def test_other_runs_of_this_very_folder_are_scanned_by_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lfdoctor analyze` without a path, above several runs: the command that it proposes names this folder."""
    for name in ("a", "b"):
        shutil.copytree(FIXTURES / "healthy-dpo", tmp_path / name, ignore=shutil.ignore_patterns("expected.yaml", "ORIGIN.md"))
    monkeypatch.chdir(tmp_path)
    main(["analyze"])
    assert "`lfdoctor scan .`" in " ".join(capsys.readouterr().out.split())
