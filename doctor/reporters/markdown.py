"""The report for an issue or a chat: Markdown, the verdict visible, details folded, all text of logs escaped."""

from __future__ import annotations

from collections.abc import Sequence

from doctor.report.model import EvidenceView, FindingView, PatchView, RemedyView, Report, SimilarView
from doctor.reporters import advice, base
from doctor.reporters.base import PLAIN, Screen
from doctor.reporters.markup import code, escaped, fenced, folded
from doctor.words import catalogue as wording
from doctor.words.catalogue import Words

_MARKS = {"error": "❌", "warning": "⚠️", "note": "ℹ️"}
_ADVICE = {"apply": "✅", "later": "⏭️", "done": "☑️", "not_applicable": "➖", "conflict": "↔️", "rejected": "❌", "manual": "✋"}


def render(report: Report, screen: Screen = PLAIN) -> str:  # noqa: ARG001 (the shape of every reporter)
    """The report as GitHub-flavoured Markdown."""
    return "\n\n".join(filter(None, Document(report, wording.load(report.lang)).blocks())) + "\n"


class Document:
    """One report in one language, block by block."""

    def __init__(self, report: Report, words: Words) -> None:
        self.report = report
        self.words = words

    def blocks(self) -> list[str]:
        """All parts in reading order."""
        words = self.words
        roots, followed, others, notes = base.parts(self.report)
        said = [] if roots and roots[0].severity != "note" else self.no_cause()
        out = [*self.attempts(), *said, *(block for root in roots for block in self.finding(root, "###"))]
        if followed:
            out += [f"**{words('then')}**", self.lines(followed)]
        for root in roots:
            out += self.remedies(root)
        if self.report.patch:
            out += self.patch(self.report.patch)
        known = advice.known_failures(self.report)
        if known:
            out += [f"**{words('similar')}**", "\n".join(self.known_failure(fix, issues) for fix, issues in known)]
        if others:
            inside = [block for finding in others for block in [*self.finding(finding, "####"), self.todo(finding)]]
            out.append(folded(f"{words('also')}: {len(others)}", inside))
        if notes:
            out.append(folded(f"{words('notes')}: {len(notes)}", [self.lines(notes)]))
        others_here = base.other_run_lines(self.report, words)
        if others_here:
            out += [f"**{words('other_runs')}**", "\n".join(f"- {escaped(line)}" for line in others_here)]
        out.append(folded(words("details"), self.bottom()))
        return [*out, f"<sub>{words('written_by', tool=self.report.tool.name, version=self.report.tool.version)}</sub>"]

    def attempts(self) -> list[str]:
        """The attempts of a healed run and where its time went, before the last one's findings."""
        line = base.time_line(self.report, self.words)
        time = [escaped(line)] if line else []
        if not self.report.healing:
            return time
        rows = [
            "\n".join([f"- {escaped(head)}", *(f"  - {escaped(line)}" for line in lines)])
            for head, lines in advice.attempt_lines(self.report, self.words)
        ]
        return [f"**{self.words('attempts')}** {escaped(self.report.healing)}", "\n".join(rows), *time]

    def no_cause(self) -> list[str]:
        kind, title, sentence = base.verdict(self.report, self.words)
        mark = "❔" if kind == "unknown" else "✅"
        return [f"### {mark} {escaped(title)}", escaped(sentence), self.run_row()]

    def run_row(self) -> str:
        """Which run this is and how far it came; its figures."""
        rows = (base.run_row(self.report, self.words), base.vitals(self.report, self.words))
        return "<br>".join("<sub>" + " · ".join(map(escaped, filter(None, row))) + "</sub>" for row in rows if row)

    def finding(self, finding: FindingView, level: str) -> list[str]:
        """Title, sentence, confidence and place, quotes, series."""
        facts = [f"**{self.words.how_sure(finding.confidence)}**", code(finding.rule), *map(escaped, base.span(finding, self.words))]
        out = [f"{level} {_MARKS[finding.severity]} {escaped(finding.title)}", escaped(finding.text), " · ".join(facts)]
        if finding.role == "root":
            out.append(self.run_row())
        out += [block for piece in finding.evidence[:2] for block in self.quote(piece)]
        rest = [block for piece in finding.evidence[2:] for block in self.quote(piece)]
        out.append(folded(self.words("more_evidence", count=len(finding.evidence) - 2), rest))
        out += [*self.samples(finding), *self.says(finding), *self.candidates(finding)]
        if finding.series:
            out.append(fenced("\n".join(base.sparkline(finding.series, 72, self.words))))
        return out

    def quote(self, piece: EvidenceView) -> list[str]:
        return [f"{code(base.place(piece, self.words))}", fenced(piece.text)]

    def says(self, finding: FindingView) -> list[str]:
        """What the message itself advises."""
        if not finding.says:
            return []
        rows = [f"- {escaped(one.text)}" + (f"\n  {code(one.command)}" if one.command else "") for one in finding.says]
        return [f"**{self.words('message_says')}**", "\n".join(rows)]

    def samples(self, finding: FindingView) -> list[str]:
        """The samples of the step that failed."""
        heading, lines = advice.sample_lines(finding, self.words)
        return [f"**{escaped(heading)}**", "\n".join(f"- {escaped(line)}" for line in lines)] if lines else []

    def candidates(self, finding: FindingView) -> list[str]:
        """Possible causes of a failure that no rule lists, most probable first."""
        rows = [
            "\n".join([f"- **{escaped(title)}**", *(f"  {escaped(line)}" for line in (reasons, check) if line)])
            for title, reasons, check in advice.candidate_lines(finding, self.words)
        ]
        return [f"**{self.words('candidates')}**", "\n".join(rows)] if rows else []

    def lines(self, findings: Sequence[FindingView]) -> str:
        """Consequences or notes, one line each."""
        out = []
        for finding in findings:
            where = [code(base.place(finding.evidence[0], self.words))] if finding.evidence else []
            out.append(
                f"- {escaped(finding.title)} ({', '.join([code(finding.rule), *map(escaped, base.span(finding, self.words)), *where])})"
            )
        return "\n".join(out)

    def remedies(self, finding: FindingView) -> list[str]:
        """The remedies in the report's order as a table; the guide's corrections folded."""
        groups = advice.in_groups(finding.remedies)
        words = self.words
        if not groups:
            return [f"**{words('helps')}**", words("no_remedy")]
        head = [words(name) for name in ("guide_step", "status", "what", "why", "cost")]
        rows = [head, ["---"] * len(head), *(self.row(label, remedy) for label, remedy in groups.labelled(words))]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        corrections = [
            f"- {words.section[remedy.guide.section]} {remedy.guide.step}: {escaped(remedy.correction)}"
            for remedy in groups.guide
            if remedy.guide and remedy.correction
        ]
        return [f"**{words('helps')}**", escaped(groups.intro(words)), table, folded(words("corrections"), ["\n".join(corrections)])]

    def row(self, label: str, remedy: RemedyView) -> list[str]:
        words = self.words
        values = advice.new_values(remedy, words)
        what = [escaped(remedy.text), code(values), escaped(words("command", command=f"`{remedy.command}`")) if remedy.command else ""]
        stands = advice.standing(remedy, self.report)
        status = f"{_ADVICE[stands]} {words.advice[stands]}"
        return [label, status, "<br>".join(filter(None, what)), escaped(remedy.reason), escaped(remedy.cost)]

    def known_failure(self, fix: str, issues: Sequence[SimilarView]) -> str:
        """What fixed it, and links to the issues."""
        return f"- {', '.join(map(self.issue, issues))}: {escaped(fix)}"

    def issue(self, known: SimilarView) -> str:
        owner, _, number = known.issue.partition("#")
        link = f"[{escaped(known.issue)}](https://github.com/{owner}/issues/{number})"
        return self.words("similar_issue", issue=link, score=f"{known.score:.2f}")

    def todo(self, finding: FindingView) -> str:
        todo = [remedy for remedy in finding.remedies if remedy.status in ("apply", "manual")]
        return "\n".join(f"- {self.words.sentences(escaped(remedy.text), escaped(remedy.reason))}" for remedy in todo)

    def patch(self, patch: PatchView) -> list[str]:
        """Diff or overrides, what they are predicted to do, what to run."""
        words = self.words
        out = [f"**{words('patch')}** {code(patch.source) if patch.source else ''}".rstrip()]
        if patch.diff:
            out.append(fenced(patch.diff, "diff"))
        elsewhere = [change for change in patch.changes if change.target != "config" or not patch.diff]
        if elsewhere:
            out.append("\n".join(f"- {escaped(advice.change_line(change, words))}" for change in elsewhere))
        said, options = advice.launch_lines(patch, words)
        out += [escaped(said), fenced(options, "sh") if options else ""]
        out.append("\n".join(f"- {escaped(line)}" for line in [*patch.notes, *advice.predicted_lines(patch, words)]))
        commands = advice.next_commands(self.report)
        return [*out, *([f"**{words('next')}**", fenced("\n".join(commands), "sh")] if commands else [])]

    def bottom(self) -> list[str]:
        """Rules that were not checked, files read, read errors."""
        words, sources = self.words, self.report.run.sources
        read = [
            words("source", path=f"`{source.path}`", kind=source.kind, records=f"{source.records:,}")
            for source in sources
            if source.records or not source.problems
        ]
        read += base.skipped_lines(self.report, words)
        troubles = [f"`{source.path}`: {problem}" for source in sources for problem in source.problems] + self.report.problems
        parts = (
            (words("blind"), base.blind_lines(self.report, words)),
            (f"{words('read')} ({base.rules_line(self.report, words)})", read),
            (words("problems"), troubles),
        )
        return [f"**{title}**\n\n" + "\n".join(f"- {escaped(line)}" for line in lines) for title, lines in parts if lines]
