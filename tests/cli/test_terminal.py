"""On a real terminal: links, pager, sign of life; and the three amounts of detail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.cli.main import main
from doctor.reporters.base import Screen
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from tests.reporters import samples

pty = pytest.importorskip("pty", reason="a terminal of POSIX")
FIXTURE = Path(__file__).parents[2] / "fixtures" / "lr_too_high-lora"


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal of 80x24 receives from standard output and standard error."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "doctor", *arguments]
    base = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "PAGER", "LFDOCTOR_PAGER", "COLUMNS")}
    child = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env={**base, "TERM": "xterm-256color", **environment}
    )
    os.close(follower)
    told = b""
    while True:
        try:
            got = os.read(leader, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not got:
            break
        told += got
    child.wait(60)
    os.close(leader)
    return told.decode("utf-8", "replace")


def test_places_are_links_on_a_terminal_and_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    """OSC 8 with the file's address; none in a pipe, none where colour is not wanted."""
    assert f"file://{FIXTURE}/run/trainer_log.jsonl" in on_a_terminal("analyze", str(FIXTURE), LFDOCTOR_PAGER="")
    assert "\x1b]8" not in on_a_terminal("analyze", str(FIXTURE), LFDOCTOR_PAGER="", NO_COLOR="1")
    main(["analyze", str(FIXTURE), "--fail-on", "never"])
    assert "\x1b" not in capsys.readouterr().out


def test_a_long_report_is_paged_on_a_terminal() -> None:
    """By the pager of the user's choice; not when told not to, not into a pipe, and the exit code stays that of the findings."""
    pager = f"{sys.executable} -c \"import sys; print('paged', len(sys.stdin.read().splitlines()) > 24)\""
    assert "paged True" in on_a_terminal("analyze", str(FIXTURE), LFDOCTOR_PAGER=pager)
    assert "paged" not in on_a_terminal("analyze", str(FIXTURE), "--no-pager", LFDOCTOR_PAGER=pager)
    assert "paged" not in on_a_terminal("analyze", str(FIXTURE), "--quiet", LFDOCTOR_PAGER=pager)
    assert "The loss diverges" in on_a_terminal("analyze", str(FIXTURE), LFDOCTOR_PAGER="/there/is/no/pager")
    piped = subprocess.run(
        [sys.executable, "-m", "doctor", "analyze", str(FIXTURE)],
        capture_output=True, text=True, encoding="utf-8", env={**os.environ, "LFDOCTOR_PAGER": pager}, timeout=60,
    )  # fmt: skip
    assert "paged" not in piped.stdout


def test_quiet_is_verdict_and_next_steps_verbose_is_everything() -> None:
    """Each shows more than the last; quiet keeps what is needed to act, verbose hides no evidence and shows the lines around it."""
    report = settled(samples.diverged())
    quiet, usual, verbose = (REPORTERS["terminal"](report, Screen(detail=detail)) for detail in (-1, 0, 1))
    assert len(quiet) < len(usual) <= len(verbose)
    assert quiet.split("\n")[0] == usual.split("\n")[0]
    assert quiet.count("\n") <= 14


def test_verbose_tells_every_piece_of_evidence_and_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight evaluations above the best one have eight quotes, and the lines around them."""
    many = FIXTURE.with_name("overfitting-tiny-set")
    main(["analyze", str(many), "--verbose", "--fail-on", "never"])
    verbose = capsys.readouterr().out
    main(["analyze", str(many), "--fail-on", "never"])
    usual = capsys.readouterr().out
    assert verbose.count("trainer_log.jsonl:") >= usual.count("trainer_log.jsonl:") + 3
    assert '{"current_steps": 32,' in verbose
    assert "Environment" in verbose


def test_a_slow_reading_shows_a_sign_of_life(tmp_path: Path) -> None:
    """On standard error, on a terminal only; gone when the report comes."""
    code = (
        "import time\nfrom doctor.cli.progress import shown_progress\n"
        "with shown_progress() as shown:\n    time.sleep(1.2)\n    shown and shown('x.log', 5, 10)\nprint('done')"
    )
    leader, follower = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    out, _ = child.communicate(timeout=60)
    told = os.read(leader, 65536).decode("utf-8", "replace")
    os.close(leader)
    assert out == b"done\n"
    assert "x.log" in told
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert piped.stderr == b""
