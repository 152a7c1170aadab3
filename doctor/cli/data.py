"""lfdoctor data: look at the data sets of a configuration as LLaMA-Factory will read them; --fix-data writes a cleaned copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.analyze import FAIL_ON
from doctor.cli.common import FailOn, Lang, Output, Quiet, Verbose, one_language, one_of, screen, write_file, write_out

if TYPE_CHECKING:
    from doctor.dataset.inspect import Look

FORMATS = ("terminal", "json", "markdown")


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
    lang: Lang = "en",
    fail_on: FailOn = "error",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Look at the data sets of a config: what LLaMA-Factory would stop at or leave out, what is damaged or double, how long samples are."""
    from doctor.config.files import read_values
    from doctor.dataset import output as written
    from doctor.dataset.inspect import Look, inspect

    one_of(kind, FORMATS, "--format")
    one_language(lang)
    severities = FAIL_ON[one_of(fail_on, FAIL_ON, "--fail-on")]
    values = read_values(config)
    look = Look(rows=rows, near=near, lengths=lengths, gpus=num_gpus, ask=ask)
    report = inspect(values, folder, look, name=str(config))
    if kind == "json":
        text = written.to_json(report, lang)
    elif kind == "markdown":
        text = written.to_markdown(report, lang, folder)
    else:
        text = written.to_terminal(report, lang, folder, unicode=output is not None or screen().unicode, detail=verbose - quiet)
    if output is not None:
        write_file(output, text)
    else:
        write_out(text, encoding=None if kind == "terminal" else "utf-8")
    if fix_data is not None:
        _clean(values, folder, fix_data, look, lang)
    return int(any(finding.severity in severities for finding in report.findings))


def _clean(values: Mapping[str, Any], folder: Path, out: Path, look: Look, lang: str) -> None:
    """Write the copy and say on stderr what it holds."""
    from doctor.dataset.cleaning import clean_copy
    from doctor.words.catalogue import say

    made = clean_copy(values, folder, out, look)
    typer.echo(say("data.say.wrote", lang, folder=made.folder, kept=made.kept, dropped=made.dropped), err=True)
