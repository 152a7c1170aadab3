"""lfdoctor watch: a live view of a run, from its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from doctor.cli.common import Lang, one_language
from doctor.errors import NOTHING_TO_READ, DoctorError


def watch(
    path: Annotated[Path, typer.Argument(help="A run folder, an output folder of lfdoctor run, or a log file.")] = Path(),
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit: 1 if an error was found, else 0.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.2, help="Time between two updates.", metavar="SECONDS")] = 2.0,
    lang: Lang = "en",
) -> int:
    """Follow a running or finished run: curves, step time, memory, time left, findings. Only reads files, so it works on any machine."""
    one_language(lang)
    from rich.console import Console

    from doctor.live.watch.screen import render
    from doctor.live.watch.view import Watched

    watched = Watched(path, lang)
    console = Console(highlight=False, emoji=False, markup=False, legacy_windows=False)
    if once:
        state = watched.state()
        console.print(render(state, min(console.width, 120), lang))
        return int(any(finding.severity == "error" for finding in state.findings))
    from rich.live import Live

    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            try:
                state = watched.state()
            except DoctorError as error:  # the run has not written anything yet
                if error.exit_code != NOTHING_TO_READ or not path.exists():
                    raise
            else:
                live.update(render(state, min(console.width, 120), lang), refresh=True)
                if state.status in ("completed", "ended_early", "failed", "interrupted"):
                    break
            time.sleep(interval)
    console.print(render(state, min(console.width, 120), lang))
    return int(any(finding.severity == "error" for finding in state.findings))
