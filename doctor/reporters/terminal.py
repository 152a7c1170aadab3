"""The report for the eye: verdict first, then evidence, what helps, the patch; 80 columns, with or without colour."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from doctor.report.model import EvidenceView, FindingView, PatchView, RemedyView, Report
from doctor.reporters import base
from doctor.reporters.base import PLAIN, Screen
from doctor.support.wrapping import Flowing
from doctor.words import catalogue as wording
from doctor.words.catalogue import Words

_SYMBOLS = {"error": "✗", "warning": "⚠", "note": "-", "fine": "✓", "unknown": "?", "then": "➜", "bar": "│", "dot": " · "}
_ASCII = {"error": "[x]", "warning": "[!]", "note": "-", "fine": "[ok]", "unknown": "[?]", "then": "->", "bar": "|", "dot": " - "}
_ADVICE = {"apply": "✔", "later": "▹", "done": "✓", "not_applicable": "-", "conflict": "⇄", "rejected": "✗", "manual": "✎"}
_ADVICE_ASCII = {"apply": "*", "later": "+", "done": "=", "not_applicable": "-", "conflict": "!", "rejected": "x", "manual": ">"}
COLOURS = {"error": "bright_red", "warning": "yellow", "note": "blue", "fine": "green", "unknown": "magenta"}
_ADVICE_COLOURS = {
    "apply": "bold green",
    "later": "green",
    "done": "green",
    "manual": "cyan",
    "conflict": "yellow",
    "rejected": "bright_red",
    "not_applicable": "dim",
}
_PLAINER = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "→": "->", "×": "x", "–": "-", "—": "-", "…": "...", "·": "-", "≥": ">=", "≤": "<="}
)
EVIDENCE_SHOWN = 3
FOLLOWED_SHOWN = 8
NEXT_SHOWN = 3


def render(report: Report, screen: Screen = PLAIN) -> str:
    """The page as text, 80 columns or as wide as the screen."""
    return to_text(Page(report, screen, wording.load(report.lang)).blocks(), screen)


def to_text(blocks: Sequence[RenderableType], screen: Screen) -> str:
    """Blocks one under the other; ANSI codes only where the screen takes colour; no blanks at line ends."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=screen.width,
        force_terminal=screen.color,
        color_system="standard" if screen.color else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
    )
    for block in blocks:
        console.print(block)
    return re.sub(r"[ \t]+$", "", out.getvalue(), flags=re.MULTILINE).strip("\n") + "\n"


class Page:
    """One report on one screen, block by block."""

    def __init__(self, report: Report, screen: Screen, words: Words) -> None:
        self.report = report
        self.screen = screen
        self.words = words
        self.symbols = _SYMBOLS if screen.unicode else _ASCII
        self.advice_symbols = _ADVICE if screen.unicode else _ADVICE_ASCII

    def blocks(self) -> list[RenderableType]:
        """All parts in reading order."""
        roots, followed, others, notes = base.parts(self.report)
        out: list[RenderableType] = self.attempts()
        for place, root in enumerate(roots):
            out += [*self.head(root), *(self.next() if place == 0 else []), *([] if self.screen.detail < 0 else self.proof(root))]
        if not roots:
            out += [*self.no_cause(), *self.next()]
        if self.screen.detail < 0:
            return out
        if followed:
            out += [self.heading("then"), *(self.followed(one) for one in followed[:FOLLOWED_SHOWN])]
        for root in roots:
            out += self.remedies(root)
        if self.report.patch:
            out += self.patch(self.report.patch)
        for root in roots:
            out += self.corrections(root)
        out += self.known_failures()
        if others:
            out.append(self.heading("also"))
            for place, one in enumerate(others):
                out += [*([Text()] if place else []), *self.finding(one), *self.short_remedies(one)]
        if notes:
            out += [self.heading("notes"), *(self.followed(one) for one in notes[:FOLLOWED_SHOWN])]
        return [*out, *self.bottom()]

    # --- pieces of text

    def text(self, content: str, style: str = "") -> Text:
        """Text whose `code` stands out; characters beyond ASCII made plain where the screen cannot show them."""
        content = content if self.screen.unicode else content.translate(_PLAINER)
        pieces = content.split("`")
        if len(pieces) % 2 == 0 or not self.screen.color:  # an odd backtick is no code
            return Flowing(content, style)
        return Flowing.assemble(*((piece, "cyan" if place % 2 else "") for place, piece in enumerate(pieces)), style=style)

    def indented(self, content: RenderableType, by: int = 2) -> Padding:
        return Padding(content, (0, 0, 0, by))

    def heading(self, name: str, tail: str = "") -> Text:
        return Text.assemble(
            "\n", (self.words(name), "bold underline" if self.screen.color else "bold"), (f"  {tail}" if tail else "", "dim")
        )

    def dotted(self, pieces: Sequence[str], style: str = "dim") -> Text:
        return self.text(self.symbols["dot"].join(piece for piece in pieces if piece), style)

    # --- findings

    def next(self) -> list[RenderableType]:
        """What to do, in the first lines already: the chosen remedies and the commands."""
        todo, commands = base.todo(self.report), base.next_commands(self.report)
        if not todo and not commands:
            return []
        lines = [self.text(one.text) for one in todo[:NEXT_SHOWN]] + [Text(one, "bold") for one in commands]
        out: list[RenderableType] = [Text(), self.indented(Text(self.words("do_next"), "bold green"))]
        return out + [self.indented(line, 4) for line in lines]

    def finding(self, finding: FindingView) -> list[RenderableType]:
        """All of a finding."""
        return [*self.head(finding), *self.proof(finding)]

    def proof(self, finding: FindingView) -> list[RenderableType]:
        """The quotes and the series."""
        return [*self.evidence(finding), *self.series(finding)]

    def head(self, finding: FindingView) -> list[RenderableType]:
        """Title, sentence, how sure and where."""
        head = self.text(finding.title)
        head.stylize(f"bold {COLOURS[finding.severity]}" if finding.role == "root" else "bold")
        mark = Text(f"{self.symbols[finding.severity]} ", f"bold {COLOURS[finding.severity]}")
        facts = [self.words.how_sure(finding.confidence), finding.rule, *base.span(finding, self.words)]
        out: list[RenderableType] = [self.beside(mark, head)]
        if finding.text:
            out.append(self.indented(self.text(finding.text)))
        out.append(self.indented(self.dotted(facts)))
        if finding.role == "root":
            out.append(self.run_row())
        return out

    def run_row(self) -> Padding:
        """Which run this is and how far it came."""
        return self.indented(self.dotted(base.run_row(self.report, self.words)))

    def beside(self, mark: Text, content: Text) -> Table:
        """A symbol, and text that keeps clear of it on every line."""
        grid = Table.grid()
        grid.add_column(width=mark.cell_len)
        grid.add_column(overflow="fold")
        grid.add_row(mark, content)
        return grid

    def evidence(self, finding: FindingView) -> list[RenderableType]:
        out: list[RenderableType] = []
        shown = len(finding.evidence) if self.screen.detail > 0 else EVIDENCE_SHOWN
        for piece in finding.evidence[:shown]:
            out += [Text(), self.indented(self.place(piece))]
            around = self.screen.detail > 0
            out += [self.indented(self.text(line, "dim"), 4) for line in (piece.before if around else [])]
            width = max(20, self.screen.width - 6)
            console = Console(width=width, file=io.StringIO())
            quoted = [part for line in piece.text.split("\n") for part in Text(line).wrap(console, width)]
            for line in quoted:
                out.append(self.indented(Text.assemble((f"{self.symbols['bar']} ", "dim"), line)))
            out += [self.indented(self.text(line, "dim"), 4) for line in (piece.after if around else [])]
        more = len(finding.evidence) - shown
        return [*out, self.indented(self.text(self.words("more_evidence", count=more), "dim"))] if more > 0 else out

    def place(self, piece: EvidenceView) -> Text:
        """Where a quote stands; a link to the file where the terminal takes links and the file is here."""
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
        return [Text(), self.indented(self.text(title, "dim")), self.indented(Text(blocks, "cyan")), self.indented(Text(marks, colour))]

    def followed(self, finding: FindingView) -> RenderableType:
        """A consequence or a note in two lines at most."""
        where = base.place(finding.evidence[0], self.words) if finding.evidence else ""
        head = self.text(finding.title)
        head.append("  ")
        head.append_text(self.dotted([finding.rule, *base.span(finding, self.words), where]))
        return self.indented(self.beside(Text(f"{self.symbols['then' if finding.role == 'consequence' else 'note']} ", "dim"), head))

    def attempts(self) -> list[RenderableType]:
        """The lineage of a healed run, before the last attempt's findings."""
        if not self.report.healing:
            return []
        out: list[RenderableType] = [Text(self.words("attempts"), "bold"), self.indented(self.text(self.report.healing)), Text()]
        for head, lines in base.attempt_lines(self.report, self.words):
            out += [self.indented(self.text(head)), *(self.indented(self.text(line, "dim"), 5) for line in lines)]
        return [*out, Text()]

    def no_cause(self) -> list[RenderableType]:
        """The verdict where no finding is the cause: good news, or an honest don't know."""
        kind, title, sentence = base.verdict(self.report, self.words)
        return [
            self.beside(Text(f"{self.symbols[kind]} ", f"bold {COLOURS[kind]}"), Text(title, "bold")),
            self.indented(self.text(sentence)),
            self.run_row(),
        ]

    # --- remedies

    def remedies(self, finding: FindingView) -> list[RenderableType]:
        """The table of the root cause: the guide's steps in order, then the others that say something."""
        guide, beyond = base.in_guide_order(finding.remedies)
        out: list[RenderableType] = [self.heading("helps")]
        if not guide and not beyond:
            return [*out, self.indented(self.text(self.words("no_remedy")))]
        if guide:
            titles = base.guide_titles(guide, self.words)
            out += [self.indented(self.text(self.words("guide_order" if beyond else "guide_only", titles=titles), "dim")), Text()]
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        columns = ("guide_step", "status", "what") if guide else ("status", "what")
        for column in columns:
            table.add_column(no_wrap=column != "what", overflow="fold")
        for remedy in [*guide, *beyond]:
            table.add_row(*self.remedy_row(remedy)[-len(columns) :])
        out.append(self.indented(table))
        return [*out, *self.left_out(finding, beyond)]

    def remedy_row(self, remedy: RemedyView) -> tuple[Text, Text, Text]:
        label = f"{self.words.section[remedy.guide.section]} {remedy.guide.step}" if remedy.guide else self.words("beyond")
        stands = base.standing(remedy, self.report)
        status = Text(f"{self.advice_symbols[stands]} {self.words.advice[stands]}", _ADVICE_COLOURS[stands])
        what = self.text(remedy.text, "dim" if remedy.status == "not_applicable" else "")
        lines = [remedy.reason]
        if stands in ("apply", "later", "manual"):
            lines += [
                self.words("costs", cost=remedy.cost) if remedy.cost else "",
                self.words("command", command=f"`{remedy.command}`") if remedy.command else "",
            ]
        for line in filter(None, lines):
            what.append("\n")
            what.append_text(self.text(line, "dim"))
        return Text(label, "bold" if stands == "apply" else ""), status, what

    def left_out(self, finding: FindingView, beyond: Sequence[RemedyView]) -> list[RenderableType]:
        count = sum(not one.guide for one in finding.remedies) - len(beyond)
        return [self.indented(self.text(self.words("not_here_count", count=count), "dim"))] if count else []

    def corrections(self, finding: FindingView) -> list[RenderableType]:
        """Where the guide's steps are not true of today's LLaMA-Factory."""
        guide, _ = base.in_guide_order(finding.remedies)
        rows = [(one.guide, one.correction) for one in guide if one.guide and one.correction]
        if not rows:
            return []
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for place, correction in rows:
            table.add_row(Text(f"{self.words.section[place.section]} {place.step}"), self.text(correction))
        return [self.heading("corrections"), self.indented(table)]

    def known_failures(self) -> list[RenderableType]:
        """Public issues that look like this one, and what fixed them."""
        out: list[RenderableType] = []
        for fix, issues in base.known_failures(self.report):
            said = (self.words("similar_issue", issue=one.issue, score=f"{one.score:.2f}") for one in issues)
            out += [self.indented(self.text(", ".join(said), "bold")), self.indented(self.text(fix), 4)]
        return [self.heading("similar"), *out] if out else []

    def short_remedies(self, finding: FindingView) -> list[RenderableType]:
        """Of a lesser finding only what one can do about it."""
        todo = [one for one in finding.remedies if one.status in ("apply", "manual")]
        mark = self.advice_symbols
        return [
            self.indented(
                self.beside(
                    Text(f"{mark[one.status]} ", _ADVICE_COLOURS[one.status]), self.text(self.words.sentences(one.text, one.reason))
                )
            )
            for one in todo
        ]

    # --- the patch

    def patch(self, patch: PatchView) -> list[RenderableType]:
        """The diff (or the overrides), what it is predicted to do, and what to run next."""
        out: list[RenderableType] = [self.heading("patch", patch.source or "")]
        out += [self.indented(line) for line in self.diff(patch)]
        elsewhere = [one for one in patch.changes if one.target != "config" or patch.diff is None]
        out += [self.indented(self.text(base.change_line(one, self.words), "green")) for one in elsewhere]
        said, options = base.launch_lines(patch, self.words)
        out += [self.indented(self.text(said))] if said else []
        out += [self.indented(Text(options, "green"), 4)] if options else []
        out += [Text() for _ in patch.notes[:1]]
        out += [self.indented(self.beside(Text(f"{self.symbols['note']} "), self.text(note))) for note in patch.notes]
        predicted = base.predicted_lines(patch, self.words)
        if predicted:
            out += [self.heading("predicted"), *(self.indented(self.text(line)) for line in predicted)]
        commands = base.next_commands(self.report)
        return [*out, *([self.heading("next")] if commands else []), *(self.indented(Text(one, "bold")) for one in commands)]

    def diff(self, patch: PatchView) -> list[Text]:
        styles = {"+": "green", "-": "bright_red", "@": "cyan"}
        lines = [line for line in (patch.diff or "").splitlines() if not line.startswith(("--- ", "+++ "))]
        return [Text(line, styles.get(line[:1], "dim")) for line in lines]

    # --- the bottom of the page

    def bottom(self) -> list[RenderableType]:
        """What could not be looked at, what was read, what went wrong in reading it."""
        out: list[RenderableType] = []
        blind = base.blind_lines(self.report, self.words)
        if blind:
            out += [self.heading("blind"), self.indented(self.text(self.words("semicolon").join(blind), "dim"))]
        out.append(self.heading("read", self.words("rules_looked", looked=self.report.rules_looked)))
        sources = self.report.run.sources
        if not sources:
            out.append(self.indented(self.text(self.words("no_sources"), "dim")))
        shown = [
            self.words("source", path=one.path, kind=one.kind, records=f"{one.records:,}")
            for one in sources
            if one.records or not one.problems
        ]
        out += [self.indented(self.text(line, "dim")) for line in (shown if self.screen.detail > 0 else shown[:12])]
        out += [self.indented(self.text(line, "dim")) for line in base.skipped_lines(self.report, self.words)]
        environment = self.report.run.environment if self.screen.detail > 0 else {}
        if environment:
            out += [
                self.heading("html_environment"),
                *(self.indented(self.text(f"{name}: {value}", "dim")) for name, value in environment.items()),
            ]
        troubles = [f"{one.path}: {problem}" for one in sources for problem in one.problems] + self.report.problems
        if troubles:
            out += [self.heading("problems"), *(self.indented(self.text(line, "yellow")) for line in troubles[:12])]
        return out
