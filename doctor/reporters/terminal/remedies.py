"""The terminal's part about what to do: remedies, the patch, commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from doctor.report.model import FindingView, PatchView, RemedyView, Report
from doctor.reporters import advice
from doctor.reporters.terminal.canvas import ADVICE_COLOURS, Canvas

NEXT_SHOWN = 3
"""Remedies named under "Do next"."""
_GAP = 2
"""Blanks between the columns of the table of remedies."""
DIFF_COLOURS = {"+": "green", "-": "bright_red", "@": "cyan"}
"""First character of a line of a diff -> colour."""


class Remedies:
    """What to do about a report's findings, block by block."""

    def __init__(self, report: Report, canvas: Canvas) -> None:
        self.report, self.canvas, self.words = report, canvas, canvas.words

    def next(self) -> list[RenderableType]:
        """What to do first: the chosen remedies and the commands."""
        todo, commands = advice.todo(self.report), advice.next_commands(self.report)
        if not todo and not commands:
            return []
        canvas = self.canvas
        lines: list[RenderableType] = []
        for place, remedy in enumerate(todo[:NEXT_SHOWN]):
            values = advice.new_values(remedy, self.words)
            lines.append(canvas.indented(canvas.text(remedy.text), 4))
            lines += [canvas.indented(Text(values, "green"), 6)] if values else []
            lines += [canvas.command(remedy.command, 6)] if remedy.command and _is_shown(remedy, first=place == 0) else []
        heading = canvas.indented(Text(self.words("do_next"), "bold green"))
        return [Text(), heading, *lines, *(canvas.command(command, 4) for command in commands)]

    def table(self, finding: FindingView) -> list[RenderableType]:
        """A root cause's remedies that say something, in the report's order, and all steps of the guide."""
        groups = advice.in_groups(finding.remedies)
        canvas = self.canvas
        out: list[RenderableType] = [canvas.heading("helps")]
        if not groups:
            return [*out, canvas.indented(canvas.text(self.words("no_remedy")))]
        if intro := groups.intro(self.words):
            out += [canvas.indented(canvas.text(intro, "dim")), Text()]
        out += self._rows(groups.labelled(self.words), labelled=bool(groups.guide))
        left_out = len(finding.remedies) - sum(map(len, groups))
        told = self.words("not_here_one") if left_out == 1 else self.words("not_here_count", count=left_out)
        return [*out, *([canvas.indented(canvas.text(told, "dim"))] if left_out else [])]

    def _rows(self, remedies: Sequence[tuple[str, RemedyView]], *, labelled: bool) -> Iterator[RenderableType]:
        """The remedies as a table that is interrupted by commands, which stand on lines of their own."""
        heads = [self._head(label, remedy)[0 if labelled else 1 :] for label, remedy in remedies]
        widths = [max(cell_len(head[column].plain) for head in heads) for column in range(len(heads[0]))]
        indent = 2 + sum(widths) + _GAP * len(widths)
        table = _columns(widths)
        for (_, remedy), head in zip(remedies, heads, strict=True):
            table.add_row(*head, self._what(remedy))
            if remedy.command and advice.standing(remedy, self.report) in ("apply", "later", "manual"):
                yield self.canvas.indented(table)
                yield self.canvas.command(remedy.command, min(indent, 8))
                table = _columns(widths)
        if table.row_count:
            yield self.canvas.indented(table)

    def _head(self, label: str, remedy: RemedyView) -> list[Text]:
        """The guide's step (or the group of a remedy that is none), and the status."""
        status = advice.standing(remedy, self.report)
        shown = Text(f"{self.canvas.advice_symbols[status]} {self.words.advice[status]}", ADVICE_COLOURS[status])
        return [Text(label, "bold" if status == "apply" else ""), shown]

    def _what(self, remedy: RemedyView) -> Text:
        """The remedy, what it changes, the reason for its status unless that says the same, and its cost."""
        what = self.canvas.text(remedy.text, "dim" if remedy.status == "not_applicable" else "")
        if values := advice.new_values(remedy, self.words):
            what.append(f"\n{values}", "green")
        cost = remedy.cost if advice.standing(remedy, self.report) in ("apply", "later", "manual") else ""
        reason = "" if remedy.reason in advice.said_by_status(self.words.lang) else remedy.reason
        for line in filter(None, (reason, self.words("costs", cost=cost) if cost else "")):
            what.append("\n")
            what.append_text(self.canvas.text(line, "dim"))
        return what

    def corrections(self, finding: FindingView) -> list[RenderableType]:
        """Where the guide's steps differ from today's LLaMA-Factory."""
        rows = [(remedy.guide, remedy.correction) for remedy in finding.remedies if remedy.guide and remedy.correction]
        if not rows:
            return []
        table = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for place, correction in rows:
            table.add_row(Text(f"{self.words.section[place.section]} {place.step}"), self.canvas.text(correction))
        return [self.canvas.heading("corrections"), self.canvas.indented(table)]

    def short(self, finding: FindingView) -> list[RenderableType]:
        """For a lesser finding only what one can do about it."""
        canvas, out = self.canvas, list[RenderableType]()
        for remedy in (remedy for remedy in finding.remedies if remedy.status in ("apply", "manual")):
            status = advice.standing(remedy, self.report)
            mark = Text(f"{canvas.advice_symbols[status]} ", ADVICE_COLOURS[status])
            out.append(canvas.indented(canvas.marked(mark, canvas.text(self.words.sentences(remedy.text, remedy.reason)))))
        return out

    def patch(self, patch: PatchView) -> list[RenderableType]:
        """The diff (or the overrides), what it is predicted to do, and what to run next."""
        canvas = self.canvas
        out: list[RenderableType] = [canvas.heading("patch", patch.source or "")]
        out += [canvas.indented(line) for line in _diff(patch)]
        outside = [change for change in patch.changes if change.target != "config" or patch.diff is None]
        out += [canvas.indented(canvas.text(advice.change_line(change, self.words), "green")) for change in outside]
        said, options = advice.launch_lines(patch, self.words)
        out += [canvas.indented(canvas.text(said))] if said else []
        out += [canvas.command(options, 4)] if options else []
        out += [Text() for _ in patch.notes[:1]]
        out += [canvas.indented(canvas.marked(Text(f"{canvas.symbols['note']} "), canvas.text(note))) for note in patch.notes]
        predicted = advice.predicted_lines(patch, self.words)
        if predicted:
            out += [canvas.heading("predicted"), *(canvas.indented(canvas.text(line)) for line in predicted)]
        return out


def _columns(widths: Sequence[int]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0), pad_edge=False)
    for width in widths:
        table.add_column(no_wrap=True, overflow="fold", min_width=width)
    table.add_column(overflow="fold")
    return table


def _diff(patch: PatchView) -> list[Text]:
    lines = [line for line in (patch.diff or "").splitlines() if not line.startswith(("--- ", "+++ "))]
    return [Text(line, DIFF_COLOURS.get(line[:1], "dim")) for line in lines]


def _is_shown(remedy: RemedyView, *, first: bool) -> bool:
    """Whether the command of a remedy stands under "Do next": of one that comes before all others, and of a first one done by hand."""
    return remedy.primary or (first and remedy.status == "manual")
