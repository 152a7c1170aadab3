"""The usual report for a terminal, on one screen: verdict, figures, what to do with values, proof, patch, effect; the rest is `-v`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, RenderableType
from rich.text import Text

from doctor.report.model import EvidenceView, FindingView, PatchView, Report
from doctor.reporters import advice, base
from doctor.reporters.base import Screen
from doctor.reporters.terminal.page import Page
from doctor.reporters.terminal.remedies import DIFF_COLOURS
from doctor.words.catalogue import Words

LINES = 45
"""Lines of the usual report; one that would be longer is written again as `TIGHT`."""


class Amounts(NamedTuple):
    """How much of each part is shown.

    `quotes` are the lines on the screen of the first quote of a cause and of the second, which is shown beside a short one. A diff of more
    than `diff` changed lines (an inline DeepSpeed config) is cut to its first `diff_head`. `named` findings of one kind, possible causes
    and similar failures are named, and `samples` of a step; the rest is counted.
    """

    quotes: tuple[int, ...]
    diff: int
    diff_head: int
    notes: int
    named: int
    samples: int


USUAL = Amounts(quotes=(5, 3), diff=10, diff_head=6, notes=2, named=3, samples=advice.SAMPLES_SHOWN)
TIGHT = Amounts(quotes=(3,), diff=6, diff_head=3, notes=1, named=2, samples=4)


class Brief(Page):
    """One report on one screen; what stands on a full page and not here is a matter of `-v`."""

    def __init__(self, report: Report, screen: Screen, words: Words, amounts: Amounts = USUAL) -> None:
        super().__init__(report, screen, words)
        self.amounts = amounts

    def blocks(self) -> list[RenderableType]:
        """All parts in reading order."""
        roots, followed, others, notes = base.parts(self.report)
        out: list[RenderableType] = self.attempts()
        if not roots or roots[0].severity == "note":
            out += self.no_cause()
        out += [*(self.head(roots[0]) if roots else []), *self.remedies.next()]
        if self.screen.detail < 0:
            return out
        out += self.proof(roots[0]) if roots else []
        out += self.patch(self.report.patch) if self.report.patch else self.known_failures()[: 1 + 2 * self.amounts.notes]
        named = [*self.named("also", [*roots[1:], *others]), *self.named("then", followed), *self.named("notes", notes)]
        return [*out, *([Text(), *named] if named else []), *self.bottom()]

    def proof(self, finding: FindingView) -> list[RenderableType]:
        """The first quotes, cut; the samples of the step; what the message itself says; possible causes; the curve."""
        canvas = self.canvas
        out: list[RenderableType] = []
        for piece, most in zip(finding.evidence, self.amounts.quotes, strict=False):
            if len(out) > self.amounts.quotes[0]:
                break
            out += [Text(), canvas.indented(self.place(piece)), *(self.quoted(line) for line in self.cut(piece, most))]
        out += [*self.samples(finding, self.amounts.samples), *self.says(finding)]
        possible = advice.candidate_lines(finding, self.words)[: self.amounts.named]
        if possible:
            out += [Text(), canvas.indented(canvas.text(self.words("candidates"), "bold"))]
        out += [self.quoted(canvas.text(self.words("label", label=title, text=check) if check else title)) for title, _, check in possible]
        return [*out, *self.series(finding)]

    def quoted(self, line: Text) -> RenderableType:
        """A line behind a bar."""
        return self.canvas.indented(self.canvas.marked(Text(f"{self.symbols['bar']} ", "dim"), line))

    def cut(self, piece: EvidenceView, most: int) -> list[Text]:
        """A quote on at most `most` lines of the screen: around its decisive words, of a traceback its end, else its beginning."""
        width = max(20, self.screen.width - 6)
        console = Console(width=width, file=io.StringIO())
        logical = piece.text.split("\n")
        lines = [part for line in logical for part in Text(line).wrap(console, width)]
        if len(lines) <= most:
            return lines
        start = _window([line.plain for line in lines], piece.mark, most, tail=len(logical) > 1)
        shown = [line.copy() for line in lines[start : start + most]]
        if start + most < len(lines):
            shown[-1].truncate(width - 6)
            shown[-1].append(" [...]")
        return [Text("[...]"), *shown[1:]] if start and most > 1 else shown

    def patch(self, patch: PatchView) -> list[RenderableType]:
        """The lines that change, changes outside the file, the first notes, the predicted effect, how much more would help."""
        canvas, words = self.canvas, self.words
        out: list[RenderableType] = [canvas.heading("patch", patch.source or "")]
        changed = [line for line in (patch.diff or "").splitlines() if line[:1] in "+-" and not line.startswith(("--- ", "+++ "))]
        shown = changed if len(changed) <= self.amounts.diff else changed[: self.amounts.diff_head]
        out += [canvas.indented(Text(line, DIFF_COLOURS[line[0]])) for line in shown]
        if len(shown) < len(changed):
            out.append(canvas.indented(canvas.text(words("diff_cut", count=len(changed) - len(shown)), "dim")))
        outside = [change for change in patch.changes if change.target != "config" or patch.diff is None]
        out += [canvas.indented(canvas.text(advice.change_line(change, words), "green")) for change in outside[: self.amounts.diff]]
        said, options = advice.launch_lines(patch, words)
        out += [canvas.indented(canvas.text(said))] if said else []
        out += [canvas.command(options, 4)] if options else []
        told = [*advice.predicted_lines(patch, words), *patch.notes[: self.amounts.notes], *self.if_not_enough()]
        return out + [canvas.indented(canvas.marked(Text(f"{canvas.symbols['item']} "), canvas.text(line))) for line in told]

    def if_not_enough(self) -> list[str]:
        """How many remedies apply that are not in the patch."""
        remedies = [remedy for finding in base.parts(self.report)[0] for remedy in finding.remedies]
        count = len({remedy.id for remedy in remedies if advice.standing(remedy, self.report) == "later"})
        return [self.words("if_not_enough_one" if count == 1 else "if_not_enough", count=count)] if count else []

    def named(self, label: str, findings: Sequence[FindingView]) -> list[RenderableType]:
        """The titles of findings in one paragraph, each with its place; what does not fit is counted."""
        if not findings:
            return []
        text = self.counted([self._titled(finding) for finding in findings])
        return [self.canvas.text(self.words("label", label=self.words(label), text=text), "" if label == "also" else "dim")]

    def counted(self, texts: Sequence[str], most: int | None = None) -> str:
        """The first texts in a row; the rest is counted."""
        most = most or self.amounts.named
        shown = self.words("semicolon").join(texts[:most])
        return self.words("more", text=shown, count=len(texts) - most) if len(texts) > most else shown

    def _titled(self, finding: FindingView) -> str:
        """A finding's title, with steps and ranks in brackets."""
        span = base.span(finding, self.words)
        return f"{finding.title} ({self.words('comma').join(span)})" if span else finding.title

    def bottom(self) -> list[RenderableType]:
        """Other runs of the folder, memory that was not checked, read errors, and where the rest is."""
        canvas, words = self.canvas, self.words
        said, *paths = base.other_run_lines(self.report, words) or [""]
        others = [said, words("label", label=words("other_runs"), text=self.counted(paths))] if paths else []
        unchecked = base.memory_unchecked(self.report, words) if self.report.findings else []
        sources = self.report.run.sources
        troubles = [f"{source.path}: {problem}" for source in sources for problem in source.problems] + self.report.problems
        out = [canvas.text(line) for line in (*others, *unchecked)]
        if troubles:
            out.append(canvas.text(words("label", label=words("problems"), text=self.counted(troubles, 1)), "yellow"))
        return [*([Text()] if out else []), *out, Text(), canvas.dotted([base.rules_line(self.report, words), words("more_by_verbose")])]


def _window(lines: Sequence[str], mark: str | None, most: int, *, tail: bool) -> int:
    """The first line to show of more than `most`."""
    start = len(lines) - most if tail else 0
    hit = next((place for place, line in enumerate(lines) if mark and mark.split("\n")[0][:30] in line), None)
    if hit is not None and not start <= hit < start + most:
        start = max(0, min(hit - 1, len(lines) - most))
    return start
