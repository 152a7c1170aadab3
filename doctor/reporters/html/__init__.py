"""The report as one HTML page."""

from doctor.reporters.html.document import render

__all__ = ["render"]
