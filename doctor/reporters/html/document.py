"""The report as one self-contained page: every language, light and dark, plots, no network, safe against what a log holds.

The plots are interactive if plotly, whose JavaScript comes with its Python package, is installed; else they are the SVG
that stands in for them in print and until they are drawn (static_plots.py).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from doctor.report.model import Report
from doctor.report.translations import translated
from doctor.reporters.base import PLAIN, Screen
from doctor.reporters.html.charts import charts, data, first_plot
from doctor.reporters.html.page import Page
from doctor.reporters.html.static_plots import plot
from doctor.support.languages import LANGUAGES
from doctor.support.optional import package_folder, pip_install
from doctor.words import catalogue as wording

HERE = Path(__file__).parent


def render(report: Report, screen: Screen = PLAIN) -> str:  # noqa: ARG001 (the shape of every reporter)
    """The page."""
    views = [translated(report, lang) for lang in sorted({report.lang, *report.translations.keys() & set(LANGUAGES)})]
    pages = [Page(view, wording.load(view.lang)) for view in views]
    shown = charts(report)
    library, library_hash = _plotly() if shown else ("", "")
    script, style = _text("page.js"), _text("style.css")
    policy = " ".join(f"'{name}'" for name in (_digest(script), library_hash) if name)
    yaml = report.to_dict()["patch"]["yaml"] if report.patch else None
    page: str = _template().render(
        report=report,
        pages=pages,
        script=script,
        style=style,
        policy=policy,
        library=library,
        static=[plot(report, chart) for chart in shown],
        first=first_plot(report, shown),
        install=pip_install("html"),
        data=data(report, yaml, {page.lang: page.words.say for page in pages})
        | {"plots": bool(library), "excerpts": {page.lang: page.excerpts() for page in pages}},
    )
    return page.rstrip() + "\n"


def _digest(script: str) -> str:
    """A script's name in the page's content security policy: no other script runs, whatever gets into the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js as base64 of gzip (1.9 instead of 4.8 MB; the browser unpacks it), and its name in the policy; empty without plotly."""
    folder = package_folder("plotly", "html")  # found, not imported: importing plotly costs a second and is not needed
    path = folder / "package_data" / "plotly.min.js" if folder else None
    if path is None or not path.is_file():
        return "", ""
    code = _lines_only(path.read_text(encoding="utf-8"))
    return base64.b64encode(gzip.compress(code.encode(), 9, mtime=0)).decode(), _digest(code)


def _lines_only(code: str) -> str:
    """plotly.js that registers no traces beside the core's own, which are lines and points: maps, 3D and the like are never run.

    That is what plotly's custom bundles do (its CUSTOM_BUNDLE.md: `require("plotly.js/lib/core")`), and halves the time until it answers.
    The modules stay in the file; a plotly that is bundled otherwise is used as it is.
    """
    short, cut = re.subn(r"(?<=;)[\w$]+\.register\(\[(?:[\w$]+\(\),?){9,}\]\);", "", code)
    return short if cut == 1 else code


@cache
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    return environment.get_template("page.html")
