"""Weights & Biases: three entries of the run's summary through `wandb.Api`; notes, tags and config stay the user's.

https://docs.wandb.ai/ref/python/public-api/run/. A run that was kept offline has no page before `wandb sync` has sent it.
"""

from __future__ import annotations

from pathlib import Path

from doctor.readers.wandb import run_path
from doctor.report.model import SourceView
from doctor.reporters.trackers.note import Note
from doctor.reporters.trackers.target import Target, library, refused
from doctor.support import shell


def target(sources: list[SourceView]) -> Target:
    """The run of the newest `run-ID.wandb`."""
    file = Path(sources[-1].path)
    return Target("W&B", run_path(file), "summary", lambda note: _summarise(note, file))


def _summarise(note: Note, file: Path) -> None:
    wandb = library("wandb", "wandb")
    if file.parent.name.startswith("offline-run-") and not file.with_name(f"{file.name}.synced").exists():
        raise refused("not_on_server", tracker="W&B", command=f"wandb sync {shell.path(str(file.parent))}")
    run = wandb.Api().run(run_path(file))
    for name, value in note.entries.items():
        run.summary[name] = value
    run.summary.update()
