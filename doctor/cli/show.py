"""lfdoctor show: a saved JSON report in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doctor.cli.common import Format, Lang, Output, emit, one_language
from doctor.errors import NOTHING_TO_READ, DoctorError


def show(
    report: Annotated[Path, typer.Argument(help="A report written with --format json.")],
    kind: Format = "terminal",
    output: Output = None,
    lang: Lang = "",
) -> None:
    """A saved JSON report in any format and in any language that it carries."""
    import msgspec

    from doctor.report import FORMAT
    from doctor.reporters.json import parse
    from doctor.translate import translated

    one_language(lang or "en")

    try:
        saved = parse(report.read_bytes())
    except OSError as error:
        raise DoctorError(f"{report}: {error.strerror or error}", NOTHING_TO_READ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DoctorError(f"{report}: no lfdoctor report: {error}") from error
    if saved.format > FORMAT:
        raise DoctorError(f"{report}: format {saved.format} is newer than this lfdoctor, which reads {FORMAT}")
    emit(translated(saved, lang) if lang else saved, kind, output)
