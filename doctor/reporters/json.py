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
    text = msgspec.json.format(msgspec.json.encode(report.to_dict()), indent=2).decode()
    return _NUMBERS.sub(lambda found: _BREAK.sub(" ", found[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


_NUMBERS = re.compile(r"\[\n +(?:-?\d[\d.eE+-]*|null)(?:,\n +(?:-?\d[\d.eE+-]*|null))*\n +\]")
_BREAK = re.compile(r"\n +")
"""A text inside JSON holds no newline of its own: what spans lines is a list."""


def schema() -> str:
    """The JSON Schema (2020-12) of format 1. It forbids no further keys: later versions may add some."""
    return msgspec.json.format(msgspec.json.encode(schema_of(Report, "A report of lfdoctor, format 1")), indent=2).decode() + "\n"


def settled(report: Report) -> Report:
    """The report as it is after it was saved and read again, so that `show` gives every format as `analyze` did, byte for byte."""
    return parse(msgspec.json.encode(report.to_dict()))


def parse(text: str | bytes) -> Report:
    """A report written by `render`; its texts are cleaned again: it may come from anywhere. MsgspecError for anything else."""
    return convert(plain(msgspec.json.decode(text)), Report)
