"""lfdoctor data: look at the data sets of a configuration as LLaMA-Factory will read them; --fix-data writes a cleaned copy."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.analyze import FAIL_ON
from doctor.cli.common import FailOn, Lang, Output, Quiet, Verbose, one_language, one_of, screen, write_file, write_out
from doctor.cli.progress import shown_progress
from doctor.errors import DoctorError

if TYPE_CHECKING:
    from doctor.dataset.inspect import Look
    from doctor.dataset.step_rows import Asked

FORMATS = ("terminal", "json", "markdown", "html")


def data(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A training YAML file.")],
    kind: Annotated[str, typer.Option("--format", "-f", help=f"One of {', '.join(FORMATS)}.", metavar="FORMAT")] = "terminal",
    output: Output = None,
    folder: Annotated[Path, typer.Option("--folder", help="The folder in which the training will be started.")] = Path(),
    rows: Annotated[int, typer.Option("--rows", help="Look at the first rows of each data set only (0: all).", min=0, metavar="N")] = 0,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Look for near duplicates.")] = True,
    lengths: Annotated[bool, typer.Option("--lengths/--no-lengths", help="Compute lengths in tokens.")] = True,
    ask: Annotated[bool, typer.Option("--ask", help="Have the LLaMA-Factory of this environment compute the lengths (slower).")] = False,
    num_gpus: Annotated[int, typer.Option("--num-gpus", help="Number of GPUs, for steps an epoch.", min=1, metavar="N")] = 1,
    fix_data: Annotated[
        Path | None, typer.Option("--fix-data", help="Write a cleaned copy to this new folder; nothing is changed in place.", metavar="OUT")
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", help="Print the samples of this optimizer step (or steps: 111-120) instead.", metavar="N")
    ] = None,
    world_size: Annotated[int, typer.Option("--world-size", help="Number of training processes, for --step.", min=1, metavar="W")] = 1,
    lang: Lang = "en",
    fail_on: FailOn = "error",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Look at the data sets of a config: what LLaMA-Factory would stop at or leave out, what is damaged or double, how long samples are."""
    from doctor.config.files import read_values
    from doctor.dataset import output as written
    from doctor.dataset.inspect import Look, inspect
    from doctor.words.catalogue import text

    one_of(kind, FORMATS, "--format")
    if kind == "html" and step is not None:
        raise DoctorError(text("errors.step_no_page"))
    if kind == "html" and output is None and sys.stdout.isatty():
        raise DoctorError(text("errors.page_on_terminal"))
    one_language(lang)
    severities = FAIL_ON[one_of(fail_on, FAIL_ON, "--fail-on")]
    values = read_values(config)
    if step is not None:
        return _steps(values, folder, step, world_size, str(config), kind, output, lang)
    look = Look(rows=rows, near=near, lengths=lengths, gpus=num_gpus, ask=ask)
    with shown_progress() as progress:
        report = inspect(values, folder, look, name=str(config), progress=progress)
    if kind == "json":
        page = written.to_json(report, lang)
    elif kind == "html":
        from doctor.dataset.page import to_html

        page = to_html(report, lang, folder)
    elif kind == "markdown":
        page = written.to_markdown(report, lang, folder)
    else:
        page = written.to_terminal(report, lang, folder, unicode=output is not None or screen().unicode, detail=verbose - quiet)
    if output is not None:
        write_file(output, page)
    else:
        write_out(page, encoding=None if kind == "terminal" else "utf-8")
    if fix_data is not None:
        _clean(values, folder, fix_data, look, lang)
    return int(any(finding.severity in severities for finding in report.findings))


def _clean(values: Mapping[str, Any], folder: Path, out: Path, look: Look, lang: str) -> None:
    """Write the copy and say on stderr what it holds."""
    from doctor.dataset.cleaning import clean_copy
    from doctor.words.catalogue import say

    made = clean_copy(values, folder, out, look)
    typer.echo(say("data.say.wrote", lang, folder=made.folder, kept=made.kept, dropped=made.dropped), err=True)


def _steps(values: Mapping[str, Any], folder: Path, step: str, world: int, name: str, kind: str, output: Path | None, lang: str) -> int:
    """Print the samples of optimizer steps."""
    from doctor.dataset import step_output
    from doctor.dataset.order import Unknown
    from doctor.dataset.step_rows import rows_of_steps
    from doctor.words.catalogue import text

    try:
        report = rows_of_steps(values, folder, _asked(step, world), name)
    except Unknown as error:
        raise DoctorError(text(f"data.order.{error.reason}", detail=error.detail)) from None
    written = step_output.to_json(report) if kind == "json" else step_output.to_text(report, lang, folder, markdown=kind == "markdown")
    if output is not None:
        write_file(output, written)
    else:
        write_out(written, encoding=None if kind == "terminal" else "utf-8")
    return 0


def _asked(step: str, world: int) -> Asked:
    """What --step asks for. Raises DoctorError."""
    from doctor.dataset.step_rows import MAX_STEPS, Asked
    from doctor.words.catalogue import text

    found = re.fullmatch(r"([0-9]{1,12})(?:-([0-9]{1,12}))?", step)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not found or not first <= last < first + MAX_STEPS:
        raise DoctorError(text("errors.step_range", most=MAX_STEPS, given=repr(step)))
    return Asked(first, last, world)
