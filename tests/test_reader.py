"""The reader test of docs/reader-test.md: the first screen (80x24) alone tells what failed, why, and what to do next."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import doctor
from doctor.reporters.advice import next_commands, todo
from doctor.reporters.base import Screen
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from doctor.words.catalogue import LANGUAGES, load

ROOT = Path(__file__).parent.parent
ASKED = re.findall(r"^\| `([\w.-]+)` \|", (ROOT / "docs" / "reader-test.md").read_text(encoding="utf-8"), re.MULTILINE)


def on_one_line(text: str) -> str:
    return re.sub(r"\s+", "", text.replace("`", ""))


def test_ten_fixtures_are_asked_about() -> None:
    """Of at least six families of failures."""
    assert len(ASKED) == 10
    assert len({doctor.analyze(ROOT / "fixtures" / name).findings[0].family for name in ASKED}) >= 6


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", ASKED)
def test_the_first_screen_tells_what_why_and_what_next(name: str, lang: str) -> None:
    """24 lines of 80 columns hold the whole title, the whole explanation, where it was seen, every step to take and the commands."""
    report = settled(doctor.analyze(ROOT / "fixtures" / name, lang=lang))
    lines = REPORTERS["terminal"](report, Screen(width=80)).split("\n")
    screen = on_one_line("\n".join(lines[:23]))  # one is the shell's
    root = report.findings[0]
    assert root.role == "root"
    assert on_one_line(root.title) in screen
    assert on_one_line(root.text) in screen
    assert on_one_line(load(lang)("do_next")) in screen
    wanted = [one.text for one in todo(report)[:3]] + next_commands(report)
    assert wanted
    for one in wanted:
        assert on_one_line(one) in screen, one
    assert on_one_line(f"{root.evidence[0].source}") in screen
