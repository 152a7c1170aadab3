"""Which page a terminal gets: one screen by default, everything with `-v`, verdict and patch for `lfdoctor fix`."""

from __future__ import annotations

import msgspec
from rich.text import Text

from doctor.report.model import Report
from doctor.reporters.base import PLAIN, Screen
from doctor.reporters.terminal.brief import LINES, TIGHT, Brief
from doctor.reporters.terminal.canvas import to_text
from doctor.reporters.terminal.page import Page
from doctor.words import catalogue as wording


def render(report: Report, screen: Screen = PLAIN) -> str:
    """The report as text, 80 columns or as wide as the screen."""
    words = wording.load(report.lang)
    if screen.detail > 0:
        return to_text(Page(report, screen, words).blocks(), screen)
    text = to_text(Brief(report, screen, words).blocks(), screen)
    return text if rows(text, screen.width) <= LINES else to_text(Brief(report, screen, words, TIGHT).blocks(), screen)


def rows(text: str, width: int) -> int:
    """How many lines of the screen a text takes: a command is one line to be copied, and a terminal wraps it where it is longer."""
    return sum(max(1, -(-Text.from_ansi(line).cell_len // width)) for line in text.rstrip("\n").split("\n"))


def render_fix(report: Report, screen: Screen = PLAIN) -> str:
    """Only the verdict, what to do next and the patch: what `lfdoctor fix` prints."""
    page = Brief(report, msgspec.structs.replace(screen, detail=-1), wording.load(report.lang))
    return to_text([*page.blocks(), *(page.remedies.patch(report.patch) if report.patch else [])], screen)
