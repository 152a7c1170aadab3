"""The outputs of a report by name. They lie in a package above this one, so the program's root says where they are (doctor/__init__.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.errors import DoctorError

if TYPE_CHECKING:
    from doctor.report.model import Report

SUFFIXES = {".html": "html", ".md": "markdown", ".json": "json", ".sarif": "sarif", ".txt": "terminal"}
"""Suffix of a file -> the output that is written to it."""


def _unknown() -> Mapping[str, Callable[[Any], str]]:
    raise RuntimeError("import doctor first: it knows the outputs")


find: Callable[[], Mapping[str, Callable[[Any], str]]] = _unknown
"""Returns name -> renderer; set by doctor/__init__.py."""


def text(report: Report, kind: str) -> str:
    """The report as `lfdoctor analyze --format KIND` writes it to a file."""
    return find()[kind](report)


def save(report: Report, path: str | Path) -> Path:
    """Write the report; the suffix decides on the format. Raises DoctorError for an unknown suffix or a file that cannot be written."""
    target = Path(path)
    kind = SUFFIXES.get(target.suffix.lower())
    if kind is None:
        raise DoctorError(f"{target}: the name of a report ends with {', '.join(SUFFIXES)}")
    try:
        target.write_text(text(report, kind), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DoctorError(f"cannot write {target}: {error.strerror or error}") from error
    return target
