"""The report for a terminal."""

from doctor.reporters.terminal.page import render

__all__ = ["render"]
