"""Checkpoint folders that another run left: their log history is no beginning of the history of the run around them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from doctor.core.events import Step
from doctor.readers import merge, trainer_state
from doctor.readers.base import Context, Reader
from doctor.readers.file import File

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_MINUTE = 60.0
"""Seconds. Files of a copied folder all have the time of the copy; only larger differences order checkpoints."""
_MIN_AGREEING = 0.5
"""Share of the steps in common whose loss must be the same. A resumed run trains a few steps twice, with other values."""

Found = Sequence[tuple[Reader, File]]


def of_other_runs(files: Found) -> list[Path]:
    """Checkpoint folders whose trainer_state.json contradicts the run's own.

    The run's history is the trainer_state.json or trainer_log.jsonl next to the checkpoints. Without either it is the newest checkpoint's.
    """
    states: dict[Path, list[tuple[Path, File]]] = defaultdict(list)
    for reader, file in files:
        if reader.kind == "trainer_state" and _CHECKPOINT.fullmatch(file.path.parent.name):
            states[file.path.parent.parent].append((file.path.parent, file))
    return [folder for root, found in states.items() for folder in _foreign(root, sorted(found, key=_newest_last), files)]


def _foreign(root: Path, states: list[tuple[Path, File]], files: Found) -> Iterator[Path]:
    own, last = _history(root, files)
    if not own and len(states) > 1:
        own = {step: [loss] for step, loss in trainer_state.losses(states.pop()[1])[0].items()}
    for folder, file in states if own else ():
        theirs, reached = trainer_state.losses(file)
        beyond = last is not None and reached is not None and reached > last
        same = [any(merge.close(loss, other) for other in own[step]) for step, loss in theirs.items() if step in own]
        if beyond or (same and sum(same) < _MIN_AGREEING * len(same)):
            yield folder


def _history(root: Path, files: Found) -> tuple[dict[int, list[float]], int | None]:
    """(Step -> losses of all attempts, last step if a finished trainer_state.json says it) of the files in the run's own folder."""
    known: dict[int, list[float]] = defaultdict(list)
    last = None
    for reader, file in files:
        if file.path.parent != root:
            continue
        if reader.kind == "trainer_state":
            own, last = trainer_state.losses(file)
            for step, loss in own.items():
                known[step].append(loss)
        elif reader.kind == "trainer_log":
            for record in _steps(reader, file):
                if "loss" in record.metrics:
                    known[record.step].append(record.metrics["loss"])
    return known, last


def _steps(reader: Reader, file: File) -> Iterator[Step]:
    records = file.source.records
    for event in reader.read(file, Context()):
        if isinstance(event, list):
            yield from event
        elif isinstance(event, Step):
            yield event
    file.source.records = records  # the file is read again


def _newest_last(state: tuple[Path, File]) -> tuple[float, int]:
    folder, file = state
    try:
        changed = file.path.stat().st_mtime // _MINUTE
    except OSError:
        changed = 0.0
    return changed, int(_CHECKPOINT.fullmatch(folder.name)[1])  # type: ignore[index]
