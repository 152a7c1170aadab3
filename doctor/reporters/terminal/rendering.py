"""Which page a terminal gets: one screen by default, everything with `-v`, verdict and patch for `lfdoctor fix`."""

from __future__ import annotations

import msgspec

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
    return text if text.count("\n") <= LINES else to_text(Brief(report, screen, words, TIGHT).blocks(), screen)


def render_fix(report: Report, screen: Screen = PLAIN) -> str:
    """Only the verdict, what to do next and the patch: what `lfdoctor fix` prints."""
    page = Brief(report, msgspec.structs.replace(screen, detail=-1), wording.load(report.lang))
    return to_text([*page.blocks(), *(page.remedies.patch(report.patch) if report.patch else [])], screen)
