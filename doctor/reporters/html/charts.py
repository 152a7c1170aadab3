"""Which curves share a plot, what each plot is called, and the data that travels to the page's script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from doctor.report.curves import Curve
from doctor.report.line_plot import incidents
from doctor.report.model import Report


class Chart(msgspec.Struct, frozen=True):
    """One plot: the name of its title in the catalogue, its metrics, the unit of its y axis."""

    name: str
    metrics: list[str]
    unit: str = ""
    over: str = "steps"


_SHARED = (
    Chart("chart_loss", ["loss", "eval_loss"]),
    Chart("chart_gradient", ["grad_norm"]),
    Chart("chart_rate", ["learning_rate"]),
    Chart("chart_pace", ["step_seconds"], "s"),
    Chart("chart_tokens", ["throughput"], "tokens/s"),
    Chart("chart_memory", ["vram_allocated_gib", "vram_reserved_gib"], "GiB"),
)
OTHERS = 8
"""Maximum number of other metrics that get a plot of their own."""


def charts(report: Report) -> list[Chart]:
    """The plots of a report that have data: the usual ones, then other logged metrics by group, then GPU and host readings."""
    over = {curve.metric: curve.over for curve in report.curves if len(curve.at) > 1 or curve.metric == "eval_loss"}
    known = {metric for chart in _SHARED for metric in chart.metrics} | {"seconds"}
    out = [msgspec.structs.replace(chart, metrics=[metric for metric in chart.metrics if metric in over]) for chart in _SHARED]
    groups: dict[str, list[str]] = {}
    for metric in (name for name, kind in over.items() if kind == "steps" and name not in known and not name.endswith(_DURATIONS)):
        groups.setdefault(metric.partition("/")[0] if "/" in metric else metric, []).append(metric)
    out += [Chart(name, metrics[:8]) for name, metrics in list(groups.items())[:OTHERS]]
    out += _readings([metric for metric, kind in over.items() if kind == "seconds"])
    still = set(constants(report))
    varying = (msgspec.structs.replace(chart, metrics=[metric for metric in chart.metrics if metric not in still]) for chart in out)
    return [chart for chart in varying if chart.metrics]


_DURATIONS = ("runtime", "samples_per_second", "steps_per_second")
"""Ends of the names under which the trainer logs how long an evaluation took: figures of the machine, in no plot of their own."""


def constants(report: Report) -> dict[str, float]:
    """Metric -> its value, of those that logged one value throughout: a plot would show a straight line."""
    values: dict[str, list[float | None]] = {}
    for curve in report.curves:
        values.setdefault(curve.metric, []).extend(curve.values)
    out = {metric: known[0] for metric, known in values.items() if len(known) > 1 and known[0] is not None and len(set(known)) == 1}
    return {metric: value for metric, value in out.items() if metric not in ("loss", "eval_loss") and value is not None}


def first_plot(report: Report, shown: list[Chart]) -> int | None:
    """The place of the chart that belongs on the first screen: the one of the root finding's metric, else the loss; None without either."""
    found = next((finding.series.metric for finding in report.findings if finding.role == "root" and finding.series), None)
    wanted = (str(found), "loss", "eval_loss")
    places = (number for name in wanted for number, chart in enumerate(shown) if name in chart.metrics and chart.over == "steps")
    return next(places, None)


def _readings(metrics: list[str]) -> list[Chart]:
    """GPU and host readings over time, one plot per unit."""
    used = [metric for metric in metrics if metric.endswith("_gib") and "gpu" in metric]
    rest = [metric for metric in metrics if metric not in used]
    kinds: dict[str, list[str]] = {}
    for metric in rest:
        kinds.setdefault(metric.rpartition(".")[2], []).append(metric)
    return [
        Chart("chart_memory", used, "GiB", "seconds"),
        *(Chart(name, some, "", "seconds") for name, some in list(kinds.items())[:OTHERS]),
    ]


def marks(report: Report) -> dict[str, list[int]]:
    """Metric -> the steps that findings refer to."""
    out: dict[str, set[int]] = {}
    for finding in report.findings:
        if finding.steps is None or finding.severity == "note":
            continue
        metric = finding.series.metric if finding.series else "loss"
        quoted = {piece.step for piece in finding.evidence if piece.step is not None}
        out.setdefault(str(metric), set()).update(quoted or {finding.steps[0]})
    return {metric: sorted(steps) for metric, steps in out.items()}


def data(report: Report, yaml: str | None, words: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the page's script needs: curves, marks, capacity and prediction, the patched YAML, and its words in every language."""
    predicted = report.patch.predicted.memory_gib if report.patch else None
    used = ("chart_", "html_")
    return {
        "lang": report.lang,
        "curves": [_plain(curve) for curve in report.curves],
        "charts": [msgspec.to_builtins(chart) for chart in charts(report)],
        "marks": marks(report),
        "incidents": incidents(report),
        "capacity": report.capacity_gib or (predicted.capacity if predicted else None),
        "predicted": msgspec.to_builtins(predicted) if predicted else None,
        "yaml": yaml,
        "yaml_name": yaml_name(report),
        "words": {lang: {name: text for name, text in said.items() if name.startswith(used)} for lang, said in words.items()},
    }


def _plain(curve: Curve) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(curve).items() if name != "over"}


def yaml_name(report: Report) -> str:
    """The file that the next command expects the patched YAML in."""
    return (report.patch.file if report.patch else None) or "train-patched.yaml"
