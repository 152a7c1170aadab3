"""A report as a small HTML table for notebooks: no script, no style sheet, everything escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from doctor.words import catalogue as wording

if TYPE_CHECKING:
    from doctor.report.model import FindingView, Report

_COLOURS = {"error": "#c62828", "warning": "#b26a00", "note": "#1565c0"}
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"


def report_html(report: Report) -> str:
    """Verdict, findings with their first quote, changes, and the command to run next."""
    words = wording.load(report.lang)
    shown = [finding for finding in report.findings if finding.severity != "note"] or report.findings
    head = f"<b>{escape(report.run.path)}</b> &middot; {escape(words.run_status[report.run.status])}"
    out = [f"<div>{head}</div>"]
    if report.healthy:
        out.append(f"<div>{escape(words('healthy'))}</div>")
    if report.verdict == "undecided":
        out.append(f"<div>{escape(words('undecided'))}</div>")
    rows = [_finding(finding, words) for finding in shown[:12]]
    out.append(f"<table>{''.join(rows)}</table>" if rows else "")
    if report.patch:
        changes = "".join(
            f"<tr>{_cell(finding.key)}{_cell(str(finding.old))}{_cell(str(finding.new))}</tr>" for finding in report.patch.changes
        )
        out.append(f"<div><b>{escape(words('patch'))}</b></div><table>{changes}</table>")
        if report.patch.command:
            out.append(f"<pre>{escape(report.patch.command)}</pre>")
    return f'<div lang="{escape(report.lang)}">{"".join(out)}</div>'


def _finding(finding: FindingView, words: wording.Words) -> str:
    colour = _COLOURS[finding.severity]
    proof = finding.evidence[0] if finding.evidence else None
    quoted = f"<pre style='white-space:pre-wrap;margin:2px 0'>{escape(proof.text)}</pre>" if proof else ""
    what = f"<b>{escape(finding.title)}</b><br>{escape(finding.text)}{quoted}"
    mark = f'<span style="color:{colour}">{escape(words.severity[finding.severity])}</span>'
    return f'<tr><td style="{_CELL}">{mark}<br>{escape(finding.rule)}</td><td style="{_CELL}">{what}</td></tr>'


def _cell(text: str) -> str:
    return f'<td style="{_CELL}">{escape(text)}</td>'
