"""lfdoctor fix: write the patched config of a failed run, and print or start the one command that trains with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.analyze import STRATEGIES, exit_code, write_patch
from doctor.cli.common import ChosenStrategy, Config, GpuMemory, Lang, LlamaFactoryVersion, one_language, one_of, screen, write_out
from doctor.errors import DoctorError

if TYPE_CHECKING:
    from doctor.report.model import Report

NOT_STARTED = 1
"""Exit code if the user did not want the training started."""


def fix(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH]...", help="The run's folder or files; default: .")] = None,
    config: Config = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new file for the patched YAML; default: NAME-patched.yaml.", metavar="FILE")
    ] = None,
    strategy: ChosenStrategy = "least-change",
    gpu_memory: GpuMemory = None,
    llamafactory_version: LlamaFactoryVersion = None,
    start: Annotated[bool, typer.Option("--start", help="Start the training with the patched config, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --start: do not ask.")] = False,
    lang: Lang = "en",
) -> int:
    """Write the patch for a run's root cause to a new YAML and print the command that trains with it.

    If no config change fixes the cause, nothing is written and the report says what helps. Existing files are never overwritten.
    """
    one_language(lang)
    if start and not yes and not sys.stdin.isatty():
        raise DoctorError("--start asks before it starts; without a terminal add --yes")
    chosen = STRATEGIES[one_of(strategy, STRATEGIES, "--strategy")]
    from doctor.diagnosis.pipeline import analyze as diagnose
    from doctor.reporters.json import settled
    from doctor.reporters.terminal.rendering import render_fix

    given: dict[str, Any] = {"gpu_memory_gib": gpu_memory, "llamafactory_version": llamafactory_version}
    report = diagnose(paths or ["."], config=config, strategy=chosen, lang=lang, **given)
    patch = report.patch
    if patch is not None and patch.yaml is not None:
        target = output or _free_name(Path(patch.file or "train-patched.yaml"))
        if target.exists():
            raise DoctorError(f"{target}: this file exists already; name a new one with --output")
        report = write_patch(report, target)
    write_out(render_fix(settled(report), screen()), encoding=None)
    if patch is None:
        return exit_code(report, ("error", "warning"))
    return _started(report, yes=yes) if start else 0


def _free_name(path: Path) -> Path:
    """`path`, or `path` with -2, -3, ... before the suffix if it exists."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _missing(packages: Sequence[str], launcher: str) -> Sequence[str]:
    """All of the packages unless the Python beside the launcher has each of them."""
    python = Path(shutil.which(launcher) or launcher).with_name("python")
    names = [re.split(r"[<>=!\[]", name)[0] for name in packages if not name.startswith("-")]
    if not names or not python.exists():
        return packages
    code = "import importlib.metadata, sys; [importlib.metadata.version(name) for name in sys.argv[1:]]"
    found = subprocess.run([python, "-c", code, *names], capture_output=True, check=False)  # noqa: S603 (the training's own Python)
    return packages if found.returncode else ()


def _started(report: Report, *, yes: bool) -> int:
    """Start the report's command in this folder; return its exit code. Packages are the user's to install."""
    from doctor.planner.launching import Launch
    from doctor.privacy.secrets import MASK

    patch = report.patch
    command = patch.command if patch else None
    launch = Launch.parse(command) if command else None
    if patch is None or command is None or launch is None:
        raise DoctorError("there is no command to start: how this training was launched is not known")
    if missing := _missing(patch.packages, launch.words[0]):
        raise DoctorError(f"first: pip install {' '.join(missing)}; then: {command}")
    if any(mark in word for word in (*launch.words, *launch.env.values()) for mark in (MASK, "$")):
        raise DoctorError(f"the command needs values that are not known here; start it yourself: {command}")
    if not yes and not typer.confirm(f"Start {command}?", err=True):
        return NOT_STARTED
    try:
        return subprocess.run(launch.words, env={**os.environ, **launch.env}, check=False).returncode  # noqa: S603 (the user's own command)
    except OSError as error:
        raise DoctorError(f"cannot start {launch.words[0]}: {error.strerror or error}") from error
