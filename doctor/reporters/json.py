"""JSON, format 1: two-space indent, keys in a fixed order, lists of numbers on one line, always valid (NaN and infinities read null)."""

from __future__ import annotations

import re

import msgspec

from doctor.privacy.secrets import plain
from doctor.report.model import Report
from doctor.reporters.base import PLAIN, Screen
from doctor.support.decoding import convert
from doctor.support.json_schema import schema_of


def render(report: Report, screen: Screen = PLAIN) -> str:  # noqa: ARG001 (the shape of every reporter)
    """The report as JSON text."""
    text = msgspec.json.format(msgspec.json.encode(plain(report.to_dict())), indent=2).decode()
    return _NUMBERS.sub(lambda found: _BREAK.sub(" ", found[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


_NUMBERS = re.compile(r"\[\n +(?:-?\d[\d.eE+-]*|null)(?:,\n +(?:-?\d[\d.eE+-]*|null))*\n +\]")
_BREAK = re.compile(r"\n +")
"""JSON texts hold no raw newline, so this matches only the layout of lists."""


def schema() -> str:
    """The JSON Schema (2020-12) of format 1. It forbids no further keys: later versions may add some."""
    return msgspec.json.format(msgspec.json.encode(schema_of(Report, "A report of lfdoctor, format 1")), indent=2).decode() + "\n"


def settled(report: Report) -> Report:
    """The report as if saved and read again: `show` then prints every format exactly as `analyze` did."""
    return parse(msgspec.json.encode(plain(report.to_dict())))


def parse(text: str | bytes) -> Report:
    """A report written by `render`. Its texts are cleaned again, for the file may come from anywhere. Raises MsgspecError."""
    return convert(plain(msgspec.json.decode(text)), Report)
