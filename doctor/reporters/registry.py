"""The outputs. A new one is one module here and its name in NAMES; each is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module  # noqa: TID251 (modules of ours)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doctor.report.model import Report
    from doctor.reporters.base import Reporter, Screen

NAMES = ("terminal", "markdown", "html", "json", "sarif", "concise", "github")


def _named(name: str) -> Reporter:
    def render(report: Report, screen: Screen | None = None) -> str:
        module = import_module(f"doctor.reporters.{name}")
        text: str = module.render(report) if screen is None else module.render(report, screen)
        return text

    return render


REPORTERS: Mapping[str, Reporter] = {name: _named(name) for name in NAMES}
