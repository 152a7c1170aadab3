"""What several commands share: option types, where output goes, exit codes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor import reporters
from doctor.errors import DoctorError
from doctor.languages import LANGUAGES

if TYPE_CHECKING:
    from doctor.report import Report
    from doctor.reporters.base import Screen

Format = Annotated[str, typer.Option("--format", "-f", help=f"One of {', '.join(reporters.NAMES)}.", metavar="FORMAT")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of standard output.", metavar="FILE")]
Lang = Annotated[
    str, typer.Option("--lang", envvar="LFDOCTOR_LANG", help=f"Language of the report: {', '.join(LANGUAGES)}.", metavar="LANG")
]


def one_of(value: str, allowed: Any, option: str) -> str:
    """`value`, if it is allowed; else a DoctorError that says what is."""
    if value not in allowed:
        raise DoctorError(f"{option} is one of {', '.join(allowed)}; not {value!r}")
    return value


def one_language(lang: str) -> str:
    """`lang`, if reports have words in it."""
    return one_of(lang, LANGUAGES, "--lang")


def emit(report: Report, kind: str, output: Path | None) -> None:
    """Renders the report to the file (UTF-8) or to standard output as that can show it."""
    from doctor.reporters.base import Screen
    from doctor.reporters.json import settled

    render = reporters.REPORTERS[one_of(kind, reporters.NAMES, "--format")]
    report = settled(report)
    if output is not None:
        write_file(output, render(report, Screen(width=100)))
    elif kind == "terminal":
        write_out(render(report, screen()), encoding=None)
    else:
        write_out(render(report))


def screen() -> Screen:
    """What standard output can show."""
    from doctor.reporters.base import Screen

    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "").replace("_", "")
    tty = sys.stdout.isatty()
    ansi = os.name != "nt" or bool({"WT_SESSION", "ANSICON", "ConEmuANSI", "TERM"} & os.environ.keys())
    color = bool(os.environ.get("FORCE_COLOR")) or (tty and ansi and os.environ.get("TERM") != "dumb")
    columns = shutil.get_terminal_size((80, 24)).columns if tty or os.environ.get("COLUMNS") else 80
    return Screen(width=max(40, min(columns, 120)), color=color and not os.environ.get("NO_COLOR"), unicode=encoding.startswith("utf"))


def write_out(text: str, encoding: str | None = "utf-8") -> None:
    """To standard output; formats for machines and files are UTF-8 everywhere, what the terminal cannot show becomes `?`."""
    data = text.encode(encoding or sys.stdout.encoding or "ascii", "replace")
    sys.stdout.flush()
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(text)
    else:
        stream.write(data)
    sys.stdout.flush()


def write_file(path: Path, text: str) -> None:
    """To a file, as UTF-8 with plain newlines. Raises DoctorError if it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise DoctorError(f"cannot write {path}: {error.strerror or error}") from error
