"""lfdoctor last: the post-mortem of the newest run below a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from doctor.cli.analyze import post_mortem
from doctor.cli.common import Config, ExitZero, FailOn, Format, GpuMemory, Lang, Output, Pager, Quiet, Rules, Verbose
from doctor.errors import NOTHING_TO_READ, DoctorError


def last(
    root: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to look, with all folders below.")] = Path(),
    config: Config = None,
    kind: Format = "terminal",
    output: Output = None,
    gpu_memory: GpuMemory = None,
    rules: Rules = None,  # noqa: ARG001 (its callback has done it)
    lang: Lang = "en",
    fail_on: FailOn = "error",
    exit_zero: ExitZero = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    pager: Pager = True,
) -> int:
    """Analyze the newest run below this folder, like `lfdoctor analyze` of its path."""
    newest = newest_run(root)
    typer.echo(f"lfdoctor: {shlex.quote(newest[0])}", err=True)
    return post_mortem(
        newest[1], config=config, kind=kind, output=output, gpu_memory=gpu_memory, lang=lang, fail_on=fail_on, exit_zero=exit_zero,
        quiet=quiet, verbose=verbose, pager=pager,
    )  # fmt: skip


def newest_run(root: Path) -> tuple[str, list[str]]:
    """Path and files of the run below a folder whose files changed last. Raises DoctorError (3) if there is none."""
    from doctor import plugins
    from doctor.readers.discovery import runs_below
    from doctor.readers.listing import LocalListing
    from doctor.readers.registry import READERS
    from doctor.words import catalogue

    if not root.is_dir():
        raise DoctorError(catalogue.text("errors.runs_folder", path=root), NOTHING_TO_READ)
    runs = [run for run in runs_below(str(root), LocalListing(), (*READERS, *plugins.load().readers)) if run.paths]
    if not runs:
        raise DoctorError(catalogue.text("errors.no_run_below", path=root.resolve()), NOTHING_TO_READ)
    newest = max(runs, key=lambda run: run.changed)
    return newest.path, [newest.path] if Path(newest.path).exists() else newest.paths
