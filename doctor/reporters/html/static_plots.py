"""The charts as SVG without a script: for print, until plotly has drawn, and for an environment without it."""

from __future__ import annotations

from doctor.report.line_plot import Plot, draw, incidents
from doctor.report.model import Report
from doctor.reporters.html.charts import Chart


def plot(report: Report, chart: Chart) -> Plot | None:
    """The chart's curves, with the incidents shaded where it is over steps; None if no value of them is finite."""
    curves = [curve for curve in report.curves if curve.metric in chart.metrics and curve.over == chart.over]
    return draw(curves, incidents(report) if chart.over == "steps" else [])
