"""lfdoctor analyze: the post-mortem of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.common import (
    ChosenStrategy,
    Config,
    ExitZero,
    FailOn,
    Format,
    GpuMemory,
    Lang,
    LlamaFactoryVersion,
    Output,
    Pager,
    Quiet,
    Rules,
    Translations,
    Verbose,
    emit,
    one_language,
    one_of,
    write_file,
)
from doctor.cli.progress import shown_progress
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.reporters import registry

if TYPE_CHECKING:
    from doctor.planner.plan import Strategy
    from doctor.report.model import Report

FAIL_ON = {"error": ("error",), "warning": ("error", "warning"), "never": ()}
"""--fail-on -> severities that give exit code 1."""

STRATEGIES: dict[str, Strategy] = {"least-change": "least-change", "guide": "guide"}
"""--strategy -> the planner's name."""


def analyze(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="A run folder, a log file, a trainer_*.json(l), an event file, a Slurm job's number, or - for standard input; default: .",
        ),
    ] = None,
    config: Config = None,
    kind: Format = "terminal",
    output: Output = None,
    patch: Annotated[Path | None, typer.Option("--patch", help="Write the patched training YAML to this new file.", metavar="FILE")] = None,
    strategy: ChosenStrategy = "least-change",
    gpu_memory: GpuMemory = None,
    llamafactory_version: LlamaFactoryVersion = None,
    history: Annotated[
        Path | None,
        typer.Option("--history", help="The table of a scan: what already failed for this job is left out.", metavar="FILE"),
    ] = None,
    write_back: Annotated[
        bool,
        typer.Option("--write-back", help="Add the verdict to the tracker that the run used, after showing what is written and asking."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --write-back: do not ask.")] = False,
    rules: Rules = None,  # noqa: ARG001 (its callback has done it)
    lang: Lang = "en",
    fail_on: FailOn = "error",
    exit_zero: ExitZero = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    translations: Translations = False,
    pager: Pager = True,
) -> int:
    """Find what went wrong in a run: the cause, the evidence, what helps in which order, and a patched config."""
    from doctor.cli.slurm import with_jobs

    return post_mortem(
        with_jobs(paths or ["."]), config=config, kind=kind, output=output, patch=patch, strategy=strategy, gpu_memory=gpu_memory,
        history=history, llamafactory_version=llamafactory_version, to_tracker=write_back, yes=yes,
        lang=lang, fail_on=fail_on, exit_zero=exit_zero, quiet=quiet, verbose=verbose, translations=translations, pager=pager,
    )  # fmt: skip


def post_mortem(
    paths: list[str],
    *,
    kind: str,
    output: Path | None,
    lang: str,
    fail_on: str,
    exit_zero: bool,
    config: Path | None = None,
    patch: Path | None = None,
    strategy: str = "least-change",
    gpu_memory: float | None = None,
    llamafactory_version: str | None = None,
    history: Path | None = None,
    to_tracker: bool = False,
    yes: bool = False,
    **shown: bool,
) -> int:
    """Analyze, write the patch and the report, return the exit code. `shown` are further arguments of `emit`. Raises DoctorError.

    `to_tracker` also adds the verdict to the run's tracker; a tracker that could not take it gives exit code 2.
    """
    one_of(kind, registry.NAMES, "--format")
    one_language(lang)
    chosen = STRATEGIES[one_of(strategy, STRATEGIES, "--strategy")]
    severities = () if exit_zero else FAIL_ON[one_of(fail_on, FAIL_ON, "--fail-on")]
    if patch is not None and patch.exists():
        raise DoctorError(f"--patch {patch}: this file exists already; name a new one")
    from doctor.diagnosis.pipeline import analyze as diagnose

    given: dict[str, Any] = {"config": config, "gpu_memory_gib": gpu_memory, "llamafactory_version": llamafactory_version}
    with shown_progress() as progress:
        report = diagnose(paths, strategy=chosen, lang=lang, progress=progress, **given)
    if history is not None and report.patch is not None:
        report = _without_earlier_attempts(history, paths, report, strategy=chosen, lang=lang, **given)
    if patch is not None:
        report = write_patch(report, patch)
    emit(report, kind, output, **shown)
    failed = _write_back(report, yes=yes) if to_tracker else 0
    return failed or exit_code(report, severities)


def _write_back(report: Report, *, yes: bool) -> int:
    from doctor.cli.write_back import write_back
    from doctor.reporters.json import settled

    return write_back(settled(report), yes=yes)


def exit_code(report: Report, severities: Sequence[str]) -> int:
    """0: judged, nothing at or above --fail-on. 1: such a finding, or the run failed. 3: nothing could be judged."""
    if any(finding.severity in severities for finding in report.findings) or (severities and report.verdict == "failed"):
        return 1
    return NOTHING_TO_READ if report.verdict == "undecided" and report.run.steps.last is None else 0


def _without_earlier_attempts(history: Path, paths: list[str], report: Report, **given: Any) -> Report:
    """The report with a patch that no earlier attempt of this job had."""
    from doctor.diagnosis.pipeline import run_analysis
    from doctor.fleet.attribution.compare import tried_before

    previous_attempts = tried_before(history, paths, report.cause)
    return run_analysis(paths, previous_attempts=previous_attempts, **given).report if previous_attempts else report


def write_patch(report: Report, target: Path) -> Report:
    """Write the patched config; the report's command then names this file."""
    import msgspec

    from doctor.reporters.advice import with_config

    if report.patch is None or report.patch.yaml is None:
        typer.echo(f"lfdoctor: {target} was not written: there is no patched config", err=True)
        return report
    write_file(target, report.patch.yaml)
    typer.echo(f"lfdoctor: patched config written to {target}", err=True)
    command = with_config(report.patch.command, report.patch.file, str(target))
    return msgspec.structs.replace(report, patch=msgspec.structs.replace(report.patch, written=str(target), command=command))
