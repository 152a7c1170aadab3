"""The whole report for a terminal (`-v`): verdict first, then evidence, what helps, the patch; with or without colour."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, RenderableType
from rich.style import Style
from rich.text import Text

from doctor.report.model import EvidenceView, FindingView, Report
from doctor.reporters import advice, base
from doctor.reporters.base import Screen
from doctor.reporters.terminal.canvas import COLOURS, Canvas
from doctor.reporters.terminal.remedies import Remedies
from doctor.words.catalogue import Words

FOLLOWED_SHOWN = 8
"""Consequences and notes shown."""
TROUBLES_SHOWN = 12
"""Read errors listed."""


class Page:
    """One report on one screen, block by block."""

    def __init__(self, report: Report, screen: Screen, words: Words) -> None:
        self.report, self.screen, self.words = report, screen, words
        self.canvas = Canvas(screen, words)
        self.symbols = self.canvas.symbols
        self.remedies = Remedies(report, self.canvas)

    def blocks(self) -> list[RenderableType]:
        """All parts in reading order."""
        roots, followed, others, notes = base.parts(self.report)
        out: list[RenderableType] = self.attempts()
        if roots and roots[0].severity == "note":
            out += [*self.no_cause(), Text()]
        for place, root in enumerate(roots):
            out += [*self.head(root), *(self.remedies.next() if place == 0 else []), *self.proof(root)]
        if not roots:
            out += [*self.no_cause(), *self.remedies.next()]
        if followed:
            out += [self.canvas.heading("then"), *(self.followed(finding) for finding in followed[:FOLLOWED_SHOWN])]
        for root in roots:
            out += self.remedies.table(root)
        if self.report.patch:
            out += self.remedies.patch(self.report.patch)
        for root in roots:
            out += self.remedies.corrections(root)
        out += self.known_failures()
        if others:
            out.append(self.canvas.heading("also"))
            for place, finding in enumerate(others):
                out += [*([Text()] if place else []), *self.finding(finding), *self.remedies.short(finding)]
        if notes:
            out += [self.canvas.heading("notes"), *(self.followed(finding) for finding in notes[:FOLLOWED_SHOWN])]
        return [*out, *self.bottom()]

    def finding(self, finding: FindingView) -> list[RenderableType]:
        """All of a finding."""
        return [*self.head(finding), *self.proof(finding)]

    def proof(self, finding: FindingView) -> list[RenderableType]:
        """The quotes and the series."""
        return [*self.evidence(finding), *self.samples(finding, 100), *self.says(finding), *self.candidates(finding), *self.series(finding)]

    def says(self, finding: FindingView) -> list[RenderableType]:
        """What the message itself advises."""
        if not finding.says:
            return []
        out: list[RenderableType] = [Text(), self.canvas.indented(self.canvas.text(self.words("message_says"), "bold"))]
        for one in finding.says:
            out.append(self.canvas.indented(Text.assemble((f"{self.symbols['bar']} ", "dim"), self.canvas.text(one.text))))
            out += [self.canvas.indented(self.canvas.text(one.command, "cyan"), 6)] if one.command else []
        return out

    def samples(self, finding: FindingView, most: int) -> list[RenderableType]:
        """The samples of the step that failed."""
        heading, lines = advice.sample_lines(finding, self.words, most)
        rows = [self.canvas.indented(Text.assemble((f"{self.symbols['bar']} ", "dim"), self.canvas.text(line))) for line in lines]
        return [Text(), self.canvas.indented(self.canvas.text(heading, "bold")), *rows] if rows else []

    def candidates(self, finding: FindingView) -> list[RenderableType]:
        """Possible causes of a failure that no rule lists, most probable first."""
        out: list[RenderableType] = []
        for title, reasons, check in advice.candidate_lines(finding, self.words):
            out.append(self.canvas.indented(Text.assemble((f"{self.symbols['bar']} ", "dim"), self.canvas.text(title, "bold"))))
            out += [self.canvas.indented(self.canvas.text(line), 5) for line in (reasons, check) if line]
        return [Text(), self.canvas.indented(self.canvas.text(self.words("candidates"), "bold")), *out] if out else []

    def head(self, finding: FindingView) -> list[RenderableType]:
        """Title, sentence, confidence and place."""
        head = self.canvas.text(finding.title)
        head.stylize(f"bold {COLOURS[finding.severity]}" if finding.role == "root" else "bold")
        mark = Text(f"{self.symbols[finding.severity]} ", f"bold {COLOURS[finding.severity]}")
        facts = [self.words.how_sure(finding.confidence), finding.rule, *base.span(finding, self.words)]
        out: list[RenderableType] = [self.canvas.marked(mark, head)]
        if finding.text:
            out.append(self.canvas.indented(self.canvas.text(finding.text)))
        out.append(self.canvas.indented(self.canvas.dotted(facts)))
        if finding.role == "root" and finding.severity != "note":
            out += self.run_rows()
        return out

    def run_rows(self) -> list[RenderableType]:
        """Which run this is and how far it came; its figures."""
        figures = base.vitals(self.report, self.words, unicode=self.screen.unicode)
        return [self.canvas.indented(self.canvas.dotted(row)) for row in (base.run_row(self.report, self.words), figures) if row]

    def evidence(self, finding: FindingView) -> list[RenderableType]:
        out: list[RenderableType] = []
        for piece in finding.evidence:
            out += [Text(), self.canvas.indented(self.place(piece))]
            out += [self.canvas.indented(self.canvas.text(line, "dim"), 4) for line in piece.before]
            width = max(20, self.screen.width - 6)
            console = Console(width=width, file=io.StringIO())
            quoted = [part for line in piece.text.split("\n") for part in Text(line).wrap(console, width)]
            for line in quoted:
                out.append(self.canvas.indented(Text.assemble((f"{self.symbols['bar']} ", "dim"), line)))
            out += [self.canvas.indented(self.canvas.text(line, "dim"), 4) for line in piece.after]
        return out

    def place(self, piece: EvidenceView) -> Text:
        """File and line of a quote, as a link if the terminal takes links and the file exists."""
        place = Text(base.place(piece, self.words), "bold cyan" if self.screen.color else "")
        path = Path(piece.source)
        if self.screen.links and path.is_file():
            place.stylize(Style(link=path.absolute().as_uri()))
        return place

    def series(self, finding: FindingView) -> list[RenderableType]:
        if not finding.series:
            return []
        title, blocks, marks = base.sparkline(finding.series, self.screen.width - 4, self.words, unicode=self.screen.unicode)
        colour = COLOURS[finding.severity]
        return [
            Text(),
            self.canvas.indented(self.canvas.text(title, "dim")),
            self.canvas.indented(Text(blocks, "cyan")),
            self.canvas.indented(Text(marks, colour)),
        ]

    def followed(self, finding: FindingView) -> RenderableType:
        """A consequence or a note in two lines at most."""
        where = base.place(finding.evidence[0], self.words) if finding.evidence else ""
        head = self.canvas.text(finding.title)
        head.append("  ")
        head.append_text(self.canvas.dotted([finding.rule, *base.span(finding, self.words), where]))
        return self.canvas.indented(
            self.canvas.marked(Text(f"{self.symbols['then' if finding.role == 'consequence' else 'note']} ", "dim"), head)
        )

    def attempts(self) -> list[RenderableType]:
        """The attempts of a healed run and where its time went, before the last one's findings."""
        line = base.time_line(self.report, self.words)
        time: list[RenderableType] = [self.canvas.text(line), Text()] if line else []
        if not self.report.healing:
            return time
        out: list[RenderableType] = [
            Text(self.words("attempts"), "bold"),
            self.canvas.indented(self.canvas.text(self.report.healing)),
            Text(),
        ]
        for head, lines in advice.attempt_lines(self.report, self.words):
            out += [
                self.canvas.indented(self.canvas.text(head)),
                *(self.canvas.indented(self.canvas.text(line, "dim"), 5) for line in lines),
            ]
        return [*out, Text(), *time]

    def no_cause(self) -> list[RenderableType]:
        """The verdict of a report without a root cause."""
        kind, title, sentence = base.verdict(self.report, self.words)
        return [
            self.canvas.marked(Text(f"{self.symbols[kind]} ", f"bold {COLOURS[kind]}"), Text(title, "bold")),
            self.canvas.indented(self.canvas.text(sentence)),
            *self.run_rows(),
        ]

    def known_failures(self) -> list[RenderableType]:
        """Public issues that look like this one, and what fixed them."""
        out: list[RenderableType] = []
        for fix, issues in advice.known_failures(self.report):
            said = (self.words("similar_issue", issue=issue.issue, score=f"{issue.score:.2f}") for issue in issues)
            out += [self.canvas.indented(self.canvas.text(", ".join(said), "bold")), self.canvas.indented(self.canvas.text(fix), 4)]
        return [self.canvas.heading("similar"), *out] if out else []

    def bottom(self) -> list[RenderableType]:
        """Rules that were not checked, files read, read errors."""
        out: list[RenderableType] = []
        others = base.other_run_lines(self.report, self.words)
        if others:
            out += [self.canvas.heading("other_runs"), *(self.canvas.indented(self.canvas.text(line)) for line in others)]
        blind = base.blind_lines(self.report, self.words)
        if blind:
            out += [self.canvas.heading("blind"), self.canvas.indented(self.canvas.text(self.words("semicolon").join(blind), "dim"))]
        out.append(self.canvas.heading("read", base.rules_line(self.report, self.words)))
        sources = self.report.run.sources
        if not sources:
            out.append(self.canvas.indented(self.canvas.text(self.words("no_sources"), "dim")))
        shown = [
            self.words("source", path=source.path, kind=source.kind, records=f"{source.records:,}")
            for source in sources
            if source.records or not source.problems
        ]
        out += [self.canvas.indented(self.canvas.text(line, "dim")) for line in shown]
        out += [self.canvas.indented(self.canvas.text(line, "dim")) for line in base.skipped_lines(self.report, self.words)]
        environment = self.report.run.environment
        if environment:
            out += [
                self.canvas.heading("html_environment"),
                *(self.canvas.indented(self.canvas.text(f"{name}: {value}", "dim")) for name, value in environment.items()),
            ]
        troubles = [f"{source.path}: {problem}" for source in sources for problem in source.problems] + self.report.problems
        if troubles:
            out += [
                self.canvas.heading("problems"),
                *(self.canvas.indented(self.canvas.text(line, "yellow")) for line in troubles[:TROUBLES_SHOWN]),
            ]
        return out
