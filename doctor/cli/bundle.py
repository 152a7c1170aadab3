"""lfdoctor bundle: write a zip for a bug report with all secrets masked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doctor.cli.common import Config, Lang, one_language, write_out
from doctor.errors import DoctorError


def bundle(
    paths: Annotated[list[str], typer.Argument(metavar="RUN...", help="A run folder, or any other input of analyze.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip file to write.", metavar="FILE")] = Path("bundle.zip"),
    config: Config = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only show what would be masked; write nothing.")] = False,
    lang: Lang = "en",
) -> None:
    """Zip report, config, environment, log excerpts and series, with tokens, keys, names, hosts and training samples masked."""
    one_language(lang)
    if output.exists() and not preview:
        raise DoctorError(f"{output}: this file exists already; name a new one with -o")
    from doctor.diagnosis.pipeline import analyze
    from doctor.reporters.bundle import make

    made = make(analyze(paths, config=config, lang=lang))
    if preview:
        write_out(made.preview(), encoding=None)
        return
    try:
        made.write(output)
    except OSError as error:
        raise DoctorError(f"cannot write {output}: {error.strerror or error}") from error
    count = sum(made.masked.values())
    typer.echo(f"lfdoctor: {output} written: {len(made.files) + 1} files, {count} places masked (see masked.md in it)", err=True)
