"""The command line as a user has it: exit codes, what goes to which stream, plain errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.cli.main import main
from doctor.rulebook.loader import load
from doctor.rulebook.model import LineExample
from doctor.support.languages import LANGUAGES
from tests.reporters import samples

RULE = """\
id: data/made-up
cause: dataset_json_malformed
symptom: data
severity: error
status: trial
when:
  log_pattern:
    contains: ["is not valid JSON"]
    any_of: ['Row (?P<row>\\d+) of (?P<file>\\S+) is not valid JSON']
title: {en: A row is broken, ko: 행이 깨졌습니다}
body: [{en: "Row {row} of {file}.", ko: "{file}의 {row}번째 행."}]
examples:
  match: [{line: "ValueError: Row 17 of train.json is not valid JSON", facts: {row: "17"}}]
  no_match: [{line: "train.json is valid JSON"}]
"""


def lfdoctor(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the real program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "doctor", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        input=stdin,
        timeout=120,
        env={**os.environ, "NO_COLOR": "1", **environment},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved JSON report."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps(samples.oom().to_dict()), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["analyze", "--fromat", "json"], 2, "No such option"),
        (["analyze", ".", "--format", "pdf"], 2, "terminal, markdown, html, json"),
        (["analyze", ".", "--lang", "xx"], 2, "en, ko, zh"),
        (["analyze", ".", "--strategy", "luck"], 2, "least-change"),
        (["analyze", ".", "--fail-on", "note"], 2, "error, warning, never"),
        (["analyze", "/there/is/no/such/run"], 3, "/there/is/no/such/run"),
        (["explain", "memory/cuda-oooom"], 2, "no rule"),
        (["show", "/there/is/no/report.json"], 3, "report.json"),
        (["rules", "test", "/there/is/no/folder"], 2, "no such folder"),
        (["analyse"], 2, "analyse"),
    ],
)
def test_an_error_is_one_plain_line(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`lfdoctor: ...` on stderr, nothing on stdout, the exit code of the kind of error, never a traceback."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lfdoctor: ")
    assert words in err
    assert err.count("\n") == 1


def test_an_unexpected_error_is_one_line_too(saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug of ours is told as such, exit code 2; the traceback only on request."""
    monkeypatch.setattr("doctor.reporters.json.parse", lambda _: 1 / 0)
    assert main(["show", str(saved)]) == 2
    assert "unexpected ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.setenv("LFDOCTOR_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["show", str(saved)])


def test_show_renders_a_saved_report(saved: Path) -> None:
    """In any format, and in any language: a report carries its sentences in all of them."""
    shown = lfdoctor("show", str(saved), "--lang", "ko")
    assert shown.returncode == 0
    assert "The GPU ran out of memory" not in shown.stdout
    assert samples.oom("ko").findings[0].title in shown.stdout
    assert "다음에 할 일" in shown.stdout
    assert lfdoctor("show", str(saved), "--format", "json").stdout == lfdoctor("show", str(saved), "-f", "json").stdout
    assert lfdoctor("show", str(saved), "--format", "markdown").stdout.startswith("### ")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1}', '{"format": 99, "tool": {}}', "\x00\x01", '{"a": NaN}'])
def test_show_refuses_what_is_no_report(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the file's name."""
    path = tmp_path / "odd.json"
    path.write_text(content)
    assert main(["show", str(path)]) == 2
    assert "odd.json" in capsys.readouterr().err


def test_output_file_is_utf8_and_stdout_stays_empty(saved: Path, tmp_path: Path) -> None:
    """-o takes the report away from stdout, whatever the locale's encoding is."""
    target = tmp_path / "report.md"
    done = lfdoctor("show", str(saved), "-f", "markdown", "--lang", "ko", "-o", str(target), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stdout) == (0, "")
    assert "해결 방법" in target.read_text(encoding="utf-8")


def test_a_stream_that_is_not_unicode_gets_ascii(saved: Path) -> None:
    """No UnicodeEncodeError; frames and symbols have plain forms."""
    done = subprocess.run(
        [sys.executable, "-m", "doctor", "show", str(saved)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.decode("ascii").startswith("[x] The GPU ran out of memory")


def test_json_is_utf8_on_any_stream(saved: Path) -> None:
    """A report for programs does not depend on the locale."""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-m", "doctor", "show", str(saved), "-f", "json"], capture_output=True, env=environment, timeout=60
    )
    assert json.loads(done.stdout.decode("utf-8"))["format"] == 1


def test_colour_only_where_it_is_wanted(saved: Path) -> None:
    """A pipe gets none; FORCE_COLOR gives it, NO_COLOR takes it."""
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}

    def shown(**more: str) -> bytes:
        command = [sys.executable, "-m", "doctor", "show", str(saved)]
        return subprocess.run(command, capture_output=True, env={**environment, **more}, timeout=60).stdout

    assert b"\x1b[" not in shown()
    assert b"\x1b[" in shown(FORCE_COLOR="1")
    assert b"\x1b[" not in shown(FORCE_COLOR="1", NO_COLOR="1")


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_leaves_early_is_no_error(saved: Path) -> None:
    """`lfdoctor ... | head -1` prints no traceback."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m doctor show {saved} -f json | head -c 1; sleep 0.1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_help_is_quick() -> None:
    """`--help` loads neither the engine nor the reports, YAML, pydantic or Markdown."""
    code = "import sys; from doctor.cli.main import main; main(['--help']); print([m for m in sys.modules if m in %r], file=sys.stderr)"
    heavy = (
        "doctor.diagnosis.engine",
        "doctor.report.model",
        "doctor.rulebook.model",
        "yaml",
        "msgspec",
        "numpy",
        "pydantic",
        "rich.markdown",
    )
    done = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, timeout=60)
    assert "analyze" in done.stdout
    assert done.stderr.strip() == "[]"


def test_version() -> None:
    """--version prints name and number."""
    from doctor import __version__

    assert lfdoctor("--version").stdout == f"lfdoctor {__version__}\n"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_rule_can_be_explained(lang: str) -> None:
    """No rule's page fails; each has its title, how it is seen, and every remedy."""
    from doctor.cli.explain import Explanation
    from doctor.reporters.base import PLAIN
    from doctor.reporters.terminal.canvas import to_text
    from doctor.words.catalogue import load as words

    for rule in load().rules:
        page = to_text(Explanation(rule, words(lang)).blocks(), PLAIN)
        assert rule.id in page
        assert rule.detector in page
        assert words(lang)("when_seen") in page


def test_an_explanation_shows_what_the_rule_matches_and_what_not() -> None:
    """A line stands as it is, a text without its outer line breaks, series and config as they are written in the rule."""
    from doctor.cli.explain import Explanation
    from doctor.words.catalogue import load as words

    show = Explanation(load().rules[0], words("en")).example
    assert show(LineExample(line="RuntimeError: boom")) == "RuntimeError: boom"
    assert show(LineExample(text="\nfirst\nsecond\n")) == "first\nsecond"
    assert show(LineExample(config={"stage": "sft"}, series={"loss": [1.0]})) == "{'loss': [1.0]}\n{'stage': 'sft'}"


def test_explain_takes_a_cause_and_suggests_near_names(capsys: pytest.CaptureFixture[str]) -> None:
    """What a JSON report names as cause can be looked up; a typo is answered with what is near."""
    rule = load().rules[0]
    assert main(["explain", rule.cause]) == 0
    assert rule.id in capsys.readouterr().out
    assert main(["explain", rule.id[:-1]]) == 2
    assert rule.id in capsys.readouterr().err


def test_rules_list_names_every_rule_once() -> None:
    """As a table and as JSON."""
    rows = json.loads(lfdoctor("rules", "list", "--format", "json").stdout)
    assert [row["id"] for row in rows] == [rule.id for rule in load().rules]
    family = rows[0]["id"].partition("/")[0]
    table = lfdoctor("rules", "list", "--family", family).stdout
    assert table.startswith(rows[0]["id"])
    assert all(line.startswith((f"{family}/", " ")) for line in table.splitlines())


def test_rules_test_runs_the_examples_of_a_users_folder(tmp_path: Path) -> None:
    """Kept examples and no lint: 0. A broken example or a lint: 1 and what is wrong. A broken file: 2, with file and line."""
    path = tmp_path / "data" / "made-up.yaml"
    path.parent.mkdir()
    path.write_text(RULE, encoding="utf-8")
    good = lfdoctor("rules", "test", str(tmp_path))
    assert (good.returncode, good.stdout, good.stderr) == (0, "1 rules, 2 examples, 0 failed, 0 lints\n", "")
    path.write_text(RULE.replace('row: "17"', 'row: "18"').replace("is valid JSON", "Row 1 of x is not valid JSON"), encoding="utf-8")
    bad = lfdoctor("rules", "test", str(tmp_path))
    assert bad.returncode == 1
    assert "data/made-up: match[0]: fact row is '17', not '18'" in bad.stdout
    assert "no_match[0] is recognised" in bad.stdout
    path.write_text(RULE.replace("status: trial\n", ""), encoding="utf-8")
    unseen = lfdoctor("rules", "test", str(tmp_path))
    assert unseen.returncode == 1
    assert "data/made-up: no witness" in unseen.stdout
    path.write_text(RULE.replace("severity: error", "severity: dreadful"), encoding="utf-8")
    wrong = lfdoctor("rules", "test", str(tmp_path))
    assert wrong.returncode == 2
    assert "made-up.yaml:4" in wrong.stderr


def test_schema_describes_the_rules_we_have() -> None:
    """It is JSON Schema, and knows the detectors and the three ways to write a remedy."""
    schema = json.loads(lfdoctor("rules", "schema").stdout)
    rule = schema["$defs"]["Rule"]["properties"]
    assert "log_pattern" in rule["when"]["propertyNames"]["enum"]
    assert len(rule["remedies"]["items"]["anyOf"]) == 3
