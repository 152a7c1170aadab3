"""A report about data sets as one self-contained web page, with the lengths as a histogram in which cutoff_len is marked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.dataset.findings import Finding
from doctor.dataset.inspect import DataReport
from doctor.dataset.numbers import Numbers
from doctor.dataset.output import MARKS, dataset_lines, finding_lines, length_lines, near_lines
from doctor.words.catalogue import say

if TYPE_CHECKING:
    from jinja2 import Template

_LEFT, _RIGHT, _TOP, _BOTTOM = 30.0, 690.0, 20.0, 180.0
"""The plot's box in the units of the picture."""
_PLACES = 100
_TICKS = 5


def to_html(report: DataReport, lang: str, folder: Path) -> str:
    """The page. File names and details are escaped; nothing is loaded from elsewhere."""
    title, *lines = length_lines(report, lang, folder)
    shape = _chart(report.numbers, lang) if report.numbers else {"bars": [], "ticks": [], "cut_x": None}
    return _template().render(
        lang=lang,
        title=say("data.say.title", lang, config=report.config),
        datasets=[line.strip() for seen in report.datasets for line in dataset_lines(seen, lang)],
        findings=[_finding(finding, report, lang, folder) for finding in report.findings],
        clean=say("data.say.clean", lang),
        lengths_title=title,
        lengths=[line.strip() for line in lines],
        rest=list(near_lines(report, lang)),
        **shape,
    )


def _finding(finding: Finding, report: DataReport, lang: str, folder: Path) -> dict[str, Any]:
    heading, *places, advice = finding_lines(finding, report, lang, folder, MARKS, _PLACES)
    mark, _, title = heading.partition(" ")
    shown = [place.strip() for place in places]
    return {"severity": finding.severity, "mark": mark, "title": title, "places": shown, "advice": advice.strip()}


def _chart(numbers: Numbers, lang: str) -> dict[str, Any]:
    """Bars, ticks and the place of cutoff_len."""
    most = max(numbers.bins)
    width = (_RIGHT - _LEFT) / len(numbers.bins)
    end = len(numbers.bins) * numbers.bin_tokens

    def x(tokens: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * tokens / end, 1)

    bars = [
        {
            "x": x(number * numbers.bin_tokens),
            "y": round(_BOTTOM - (height := (_BOTTOM - _TOP) * count / most), 1),
            "width": round(width - 1, 1),
            "height": round(height, 1),
            "name": say("data.say.bin", lang, first=number * numbers.bin_tokens + 1, last=(number + 1) * numbers.bin_tokens, count=count),
        }
        for number, count in enumerate(numbers.bins)
    ]
    ticks = [{"x": x(end * part / _TICKS), "tokens": end * part // _TICKS} for part in range(_TICKS + 1)]
    cut = x(numbers.cutoff_len) if numbers.cutoff_len <= end else None
    anchor = "end" if cut is not None and cut > (_LEFT + _RIGHT) / 2 else "start"
    return {
        "bars": bars, "ticks": ticks, "cut_x": cut, "cut_anchor": anchor, "cutoff": numbers.cutoff_len,
        "chart_name": say("data.say.chart", lang, samples=numbers.samples, longest=numbers.longest),
    }  # fmt: skip


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")
