"""The trackers of a run, by the files of theirs that its report was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from doctor.report.model import Report, SourceView
from doctor.reporters.trackers import mlflow, swanlab, tensorboard, trackio, wandb
from doctor.reporters.trackers.target import Target

TRACKERS: Mapping[str, Callable[[list[SourceView]], Target]] = {
    "tensorboard": tensorboard.target,
    "mlflow": mlflow.target,
    "wandb": wandb.target,
    "swanlab": swanlab.target,
    "trackio": trackio.target,
}
"""A reader's kind -> the run in that tracker. A new tracker is one module and one line."""


def targets(report: Report) -> Iterator[Target]:
    """One for each tracker, of the file that changed last; nothing for files that are not on this disk (an archive, a URL)."""
    for kind, target in TRACKERS.items():
        sources = [source for source in report.run.sources if source.kind == kind and Path(source.path).is_file()]
        if sources:
            yield target(sorted(sources, key=lambda source: Path(source.path).stat().st_mtime_ns))
