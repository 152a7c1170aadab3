"""Option types and output shared by the commands."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.errors import DoctorError
from doctor.reporters import registry
from doctor.support.languages import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doctor.report.model import Report
    from doctor.reporters.base import Screen


def completing(values: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell offers for an option with these values (`lfdoctor --install-completion`)."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def use_rules(folder: Path | None) -> Path | None:
    """Read this folder of rules, too, here and in every process that is started. Raises DoctorError."""
    if folder is not None:
        from doctor.plugins import RULES
        from doctor.words import catalogue

        if not any(folder.glob("*/*.yaml")):
            raise DoctorError(catalogue.text("errors.own_rules_folder", path=folder))
        os.environ[RULES] = str(folder.resolve())
    return folder


Format = Annotated[
    str,
    typer.Option(
        "--format", "-f", help=f"One of {', '.join(registry.NAMES)}.", metavar="FORMAT", autocompletion=completing(registry.NAMES)
    ),
]
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules", help="A folder of your own rules, <family>/<name>.yaml, to be read as well.", metavar="DIR", callback=use_rules
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of standard output.", metavar="FILE")]
Lang = Annotated[
    str,
    typer.Option(
        "--lang",
        envvar="LFDOCTOR_LANG",
        help=f"Language of the report: {', '.join(LANGUAGES)}.",
        metavar="LANG",
        autocompletion=completing(LANGUAGES),
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the verdict and what to do next.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="All evidence with the surrounding lines, and the environment.")]
FailOn = Annotated[
    str,
    typer.Option(
        "--fail-on",
        help="Exit with 1 for a finding of this severity: error, warning or never.",
        autocompletion=completing(("error", "warning", "never")),
    ),
]
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 whatever was found (3 if there was nothing to judge).")]
Translations = Annotated[bool, typer.Option("--translations", help="With --format json: also the texts in the other languages.")]
Pager = Annotated[
    bool, typer.Option("--pager/--no-pager", help="Use a pager for output longer than the terminal ($LFDOCTOR_PAGER, $PAGER, less).")
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The training YAML, if it is not in the run's folder.")]
GpuMemory = Annotated[float | None, typer.Option("--gpu-memory", min=0.1, help="Memory of one GPU in GiB, if the log does not say it.")]
LlamaFactoryVersion = Annotated[
    str | None,
    typer.Option("--llamafactory-version", help="The LLaMA-Factory meant: a release such as 0.9.4, or main.", metavar="VERSION"),
]
ChosenStrategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="least-change: the smallest change that is predicted to be enough; guide: the guide's order.",
        autocompletion=completing(("least-change", "guide")),
    ),
]


def one_of(value: str, allowed: Any, option: str) -> str:
    """Return `value` if allowed. Raises DoctorError with the allowed values."""
    if value not in allowed:
        from difflib import get_close_matches

        from doctor.words import catalogue

        near = get_close_matches(value, list(allowed), n=1)
        name = "errors.one_of_near" if near else "errors.one_of"
        raise DoctorError(catalogue.text(name, option=option, allowed=", ".join(allowed), given=repr(value), near="".join(near)))
    return value


def one_language(lang: str) -> str:
    """Return `lang` if reports exist in it. Raises DoctorError."""
    return one_of(lang, LANGUAGES, "--lang")


def emit(
    report: Report,
    kind: str,
    output: Path | None,
    *,
    quiet: bool = False,
    verbose: bool = False,
    pager: bool = True,
    translations: bool = False,
) -> None:
    """Render the report to the file (UTF-8) or to standard output, there with a pager if it is longer than the terminal.

    JSON holds the report's own language alone unless `translations`. Raises DoctorError for an unknown format, and for a web page on a
    terminal.
    """
    import msgspec

    from doctor.reporters.base import Screen
    from doctor.reporters.json import settled

    render = registry.REPORTERS[one_of(kind, registry.NAMES, "--format")]
    if kind == "html" and output is None and sys.stdout.isatty():
        from doctor.words import catalogue

        raise DoctorError(catalogue.text("errors.page_on_terminal"))
    if kind != "html" and not (kind == "json" and translations):  # the others are of one language
        report = msgspec.structs.replace(report, translations={})
    report = settled(report)
    if output is not None:
        write_file(output, render(report, Screen(width=100, detail=verbose - quiet)))
        say_written(output)
    elif kind == "terminal":
        text = render(report, msgspec.structs.replace(screen(), detail=verbose - quiet))
        if not (pager and paged(text)):
            write_out(text, encoding=None)
    else:
        write_out(render(report))


def screen() -> Screen:
    """Capabilities of standard output: width, colour, Unicode, links."""
    from doctor.reporters.base import Screen

    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "").replace("_", "")
    tty = sys.stdout.isatty()
    ansi = os.name != "nt" or bool({"WT_SESSION", "ANSICON", "ConEmuANSI", "TERM"} & os.environ.keys())
    color = bool(os.environ.get("FORCE_COLOR")) or (tty and ansi and os.environ.get("TERM") != "dumb")
    columns = shutil.get_terminal_size((80, 24)).columns if tty or os.environ.get("COLUMNS") else 80
    color = color and not os.environ.get("NO_COLOR")
    links = tty and color and os.environ.get("TERM") != "linux"  # the Linux console prints unknown escape sequences
    return Screen(width=max(40, min(columns, 120)), color=color, unicode=encoding.startswith("utf"), links=links)


def paged(text: str) -> bool:
    """Show `text` in a pager if it is longer than the terminal; return whether it was shown.

    The pager is $LFDOCTOR_PAGER, $PAGER or less; an empty variable turns it off.
    """
    if not (sys.stdout.isatty() and sys.stdin.isatty()) or text.count("\n") < shutil.get_terminal_size((80, 24)).lines:
        return False
    chosen = os.environ.get("LFDOCTOR_PAGER", os.environ.get("PAGER", "less" if shutil.which("less") else ""))
    command = shlex.split(chosen)
    if not command or command == ["cat"] or os.environ.get("TERM") == "dumb":
        return False
    try:
        # -R: colours and links; -F: exit if the text fits the screen; -X: leave the text on the screen
        subprocess.run(  # noqa: S603 (the user's own pager)
            command, input=text.encode(sys.stdout.encoding or "utf-8", "replace"), env={"LESS": "FRX", **os.environ}, check=False
        )
    except OSError:
        return False
    return True


def write_out(text: str, encoding: str | None = "utf-8") -> None:
    """Write to standard output. Machine formats are always UTF-8; characters the encoding lacks become `?`."""
    data = text.encode(encoding or sys.stdout.encoding or "ascii", "replace")
    sys.stdout.flush()
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(text)
    else:
        stream.write(data)
    sys.stdout.flush()


def say_written(path: Path) -> None:
    """Tell on standard error which file a report went to."""
    typer.echo(f"lfdoctor: report written to {path}", err=True)


def write_file(path: Path, text: str) -> None:
    """Write a file as UTF-8 with LF newlines. Raises DoctorError."""
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        from doctor.words import catalogue

        raise DoctorError(catalogue.text("errors.cannot_write", path=path, reason=error.strerror or error)) from error
