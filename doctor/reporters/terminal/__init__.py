"""The report for a terminal."""

from doctor.reporters.terminal.rendering import render

__all__ = ["render"]
