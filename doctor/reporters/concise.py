"""One line a finding, `file:line: severity rule: title`, for grep, editors and scripts; a run without any has one line with its verdict."""

from __future__ import annotations

from doctor.report.model import FindingView, Report
from doctor.reporters import advice, base
from doctor.reporters.base import PLAIN, Screen
from doctor.words import catalogue
from doctor.words.catalogue import Words


def render(report: Report, screen: Screen = PLAIN) -> str:  # noqa: ARG001 (the shape of every reporter)
    """The findings in the report's order, roots first."""
    words = catalogue.load(report.lang)
    roots, followed, others, notes = base.parts(report)
    lines = [line(report, finding, words) for finding in (*roots, *others, *followed, *notes)]
    if not roots and not others:
        _, title, _ = base.verdict(report, words)
        lines.insert(0, f"{report.run.path}: {report.verdict}: {title}")
    return "\n".join(lines) + "\n"


def line(report: Report, finding: FindingView, words: Words) -> str:
    """`file:line: severity rule: title`, of a root also the values to change."""
    where = base.place(finding.evidence[0], words) if finding.evidence else report.run.path
    return f"{where}: {finding.severity} {finding.rule}: {message(report, finding, words)}"


def message(report: Report, finding: FindingView, words: Words) -> str:
    """A finding's title; of a root with the values to change, of a consequence with what it follows from."""
    remark = values(report, finding, words)
    if finding.role == "consequence" and finding.explained_by:
        remark = words("follows_from", rule=finding.explained_by)
    text = f"{finding.title} [{remark}]" if remark else finding.title
    return " ".join(text.split())


def values(report: Report, finding: FindingView, words: Words) -> str:
    """The values that the patch changes for a root cause, `learning_rate: 0.3 → 0.0001`; empty for other findings."""
    chosen = advice.todo(report) if finding.role == "root" else []
    told = [advice.new_values(remedy, words) for remedy in finding.remedies if remedy in chosen]
    return words("comma").join(dict.fromkeys(filter(None, told)))
