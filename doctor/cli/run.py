"""lfdoctor run: a training under the doctor's eyes, with no change to any code or config."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doctor import reporters
from doctor.cli.common import Lang, one_language
from doctor.errors import DoctorError

if TYPE_CHECKING:
    from doctor.live.watched_run import Outcome


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The training, as you would start it yourself.")],
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where console, journal and report go; default: a new folder.", metavar="DIR")
    ] = None,
    stop_on_divergence: Annotated[
        bool, typer.Option("--stop-on-divergence", help="End the training, as an early stop would, once it has certainly diverged.")
    ] = False,
    lang: Lang = "en",
) -> int:
    """Runs a training, warns while there is time, keeps the evidence, and tells at the end what happened; exits as the training did."""
    one_language(lang)
    if not sys.platform.startswith(("linux", "darwin")):
        raise DoctorError("lfdoctor run needs Linux or macOS; use the callback (from doctor import DoctorCallback) here")
    from doctor.fleet.similar import analyze
    from doctor.live.supervise import exit_code
    from doctor.live.watched_run import run as watch

    target = folder or Path(time.strftime("lfdoctor-%Y%m%d-%H%M%S"))
    outcome = watch(command, target, stop_on_divergence=stop_on_divergence, lang=lang, analyze=analyze)
    _tell(outcome, target)
    return exit_code(outcome.code)


def _tell(outcome: Outcome, folder: Path) -> None:
    """The report, on standard error: standard output belongs to the training."""
    report = outcome.report
    if report is None:
        return
    if outcome.code == 0 and not report.findings:
        print(f"lfdoctor: the run ended well and looks healthy ({folder}/report.json)", file=sys.stderr)
        return
    from doctor.reporters.base import Screen

    width, color = 100, sys.stderr.isatty()
    encoding = (sys.stderr.encoding or "ascii").lower()
    text = reporters.REPORTERS["terminal"](report, Screen(width=width, color=color, unicode=encoding.startswith("utf")))
    sys.stderr.buffer.write(b"\n")  # the training may have ended in the middle of a line
    sys.stderr.buffer.write(text.encode(sys.stderr.encoding or "ascii", "replace"))
    sys.stderr.flush()
