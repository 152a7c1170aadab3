"""Trackio: an alert in the run, which is resumed for it. Metrics and config stay as they are.

https://huggingface.co/docs/trackio/alerts
"""

from __future__ import annotations

import os
from pathlib import Path

from doctor.readers.trackio import newest_run
from doctor.report.model import SourceView
from doctor.reporters.trackers.note import Note
from doctor.reporters.trackers.target import Target, library, refused

LEVELS = {"failed": "ERROR", "unhealthy": "WARN"}
"""Verdict -> name in trackio.AlertLevel; INFO for the others."""


def target(sources: list[SourceView]) -> Target:
    """The newest run of the project whose database changed last, which is the one that was read."""
    path = Path(sources[-1].path).absolute()
    run = newest_run(path)
    return Target("Trackio", f"{path.stem}/{run}", "alert", lambda note: _alert(note, path, run))


def _alert(note: Note, path: Path, run: str) -> None:
    if not run:
        raise refused("no_run")
    os.environ["TRACKIO_DIR"] = str(path.parent)  # read when trackio is imported: where it looks for PROJECT.db
    trackio = library("trackio", "trackio")
    trackio.init(project=path.stem, name=run, resume="must", embed=False, auto_log_gpu=False, auto_log_cpu=False)
    try:
        trackio.alert(title=note.title, text=note.text, level=getattr(trackio.AlertLevel, LEVELS.get(note.verdict, "INFO")))
    finally:
        trackio.finish()
