"""A report as a small HTML table for notebooks, with the curve of the cause: no script, no style sheet, everything escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from doctor.report.line_plot import HEIGHT, WIDTH, Plot, draw, incidents
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
    if (plot := _plot(report)) is not None:
        out.append(_figure(plot, words))
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


def _plot(report: Report) -> Plot | None:
    """The metric in which the root was seen, else the losses; None where neither has a course."""
    seen = next((str(finding.series.metric) for finding in report.findings if finding.role == "root" and finding.series), "loss")
    wanted = ("loss", "eval_loss") if seen in ("loss", "eval_loss") else (seen,)
    curves = [curve for curve in report.curves if curve.metric in wanted and curve.over == "steps"]
    return draw(curves, incidents(report)) if any(len(curve.at) > 1 for curve in curves) else None


def _figure(plot: Plot, words: wording.Words) -> str:
    """The curves, the incident shaded, the ends of both axes."""
    bands = "".join(f'<rect x="{x}" y="0" width="{width}" height="{HEIGHT}" fill="#c62828" opacity="0.14"/>' for x, width in plot.bands)
    drawn = "".join(
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" vector-effect="non-scaling-stroke"/>'
        for colour, points in plot.lines
    )
    names = " ".join(f'<span style="color:{colour}">&#9644; {escape(name)}</span>' for colour, name in plot.names)
    box = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" style="{_PLOT}">{bands}{drawn}</svg>'
    steps = escape(words("steps", first=plot.first, last=plot.last))
    return f'<div style="max-width:{WIDTH}px;font-size:85%">{plot.high}{box}{plot.low} &middot; {steps} {names}</div>'


_PLOT = "display:block;width:100%;height:120px;border:solid #8884;border-width:0 0 1px 1px"


def _finding(finding: FindingView, words: wording.Words) -> str:
    colour = _COLOURS[finding.severity]
    proof = finding.evidence[0] if finding.evidence else None
    quoted = f"<pre style='white-space:pre-wrap;margin:2px 0'>{escape(proof.text)}</pre>" if proof else ""
    what = f"<b>{escape(finding.title)}</b><br>{escape(finding.text)}{quoted}"
    mark = f'<span style="color:{colour}">{escape(words.severity[finding.severity])}</span>'
    return f'<tr><td style="{_CELL}">{mark}<br>{escape(finding.rule)}</td><td style="{_CELL}">{what}</td></tr>'


def _cell(text: str) -> str:
    return f'<td style="{_CELL}">{escape(text)}</td>'
