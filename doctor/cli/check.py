"""lfdoctor check: a training configuration before it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doctor.cli.analyze import FAIL_ON
from doctor.cli.common import Format, Lang, Output, Quiet, Verbose, emit, one_of, write_file
from doctor.errors import DoctorError

FailOn = Annotated[str, typer.Option("--fail-on", help="Exit with 1 for a finding of this severity: error, warning or never.")]


def check(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="Training YAML files.")],
    kind: Format = "terminal",
    output: Output = None,
    fix: Annotated[bool, typer.Option("--fix", help="Correct the files in place; comments and order stay.")] = False,
    folder: Annotated[Path, typer.Option("--folder", help="The folder that the training will be started in.")] = Path(),
    gpu_memory: Annotated[float | None, typer.Option("--gpu-memory", help="Memory of one GPU in GiB.")] = None,
    num_gpus: Annotated[int | None, typer.Option("--num-gpus", help="Number of GPUs.")] = None,
    lang: Lang = "en",
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit with 1 for a finding of this severity: error, warning or never.")
    ] = "error",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """What LLaMA-Factory will refuse or die of, what stands in the way on disk, and whether it fits: before the GPU is rented."""
    from doctor.diagnosis.pipeline import check as run_analysis

    severities = FAIL_ON[one_of(fail_on, FAIL_ON, "--fail-on")]
    if output is not None and len(configs) > 1:
        raise DoctorError("-o takes the report of one config; check them one at a time")
    failed = False
    for config in configs:
        report = run_analysis(config, folder=folder, gpu_memory_gib=gpu_memory, num_gpus=num_gpus, lang=lang)
        emit(report, kind, output, quiet=quiet, verbose=verbose, pager=False)
        failed |= any(finding.severity in severities for finding in report.findings)
        if fix and report.patch and report.patch.yaml is not None:
            write_file(config, report.patch.yaml)
            typer.echo(f"lfdoctor: {config} corrected", err=True)
    return int(failed)
