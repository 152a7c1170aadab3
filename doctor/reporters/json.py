"""JSON, format 1: two-space indent, keys in a fixed order, always valid (NaN and infinities read null)."""

from __future__ import annotations

import msgspec

from doctor.redact import plain
from doctor.report import Report
from doctor.reporters.base import PLAIN, Screen


def render(report: Report, screen: Screen = PLAIN) -> str:  # noqa: ARG001 (the shape of every reporter)
    """The report as JSON text."""
    return msgspec.json.format(msgspec.json.encode(report.to_dict()), indent=2).decode() + "\n"


def parse(text: str | bytes) -> Report:
    """A report written by `render`; its texts are cleaned again: it may come from anywhere. MsgspecError for anything else."""
    return msgspec.convert(plain(msgspec.json.decode(text)), Report)
