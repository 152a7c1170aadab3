"""lfdoctor show: render a saved JSON report in another format or language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doctor.cli.common import Format, Lang, Output, Pager, Quiet, Translations, Verbose, emit, one_language, write_out
from doctor.errors import NOTHING_TO_READ, DoctorError


def show(
    report: Annotated[Path | None, typer.Argument(help="A report written with --format json.")] = None,
    kind: Format = "terminal",
    output: Output = None,
    lang: Lang = "",
    quiet: Quiet = False,
    verbose: Verbose = False,
    translations: Translations = False,
    pager: Pager = True,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of such reports and exit.")] = False,
) -> None:
    """Show a saved JSON report in any format and in any language that it contains."""
    import msgspec

    from doctor.report.model import FORMAT
    from doctor.report.translations import translated
    from doctor.reporters.json import parse

    if schema:
        from doctor.reporters.json import schema as describe

        write_out(describe())
        return
    if report is None:
        raise DoctorError("name a report written with --format json, or --schema")
    one_language(lang or "en")

    try:
        saved = parse(report.read_bytes())
    except OSError as error:
        raise DoctorError(f"{report}: {error.strerror or error}", NOTHING_TO_READ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DoctorError(f"{report}: not an lfdoctor report: {error}") from error
    if saved.format > FORMAT:
        raise DoctorError(f"{report}: format {saved.format} is newer than this lfdoctor, which reads {FORMAT}")
    if lang not in ("", saved.lang) and saved.findings and lang not in saved.translations:
        typer.echo(f"lfdoctor: {report}: holds its texts in {saved.lang} only; write it with --format json --translations", err=True)
        lang = saved.lang
    emit(translated(saved, lang) if lang else saved, kind, output, quiet=quiet, verbose=verbose, pager=pager, translations=translations)
