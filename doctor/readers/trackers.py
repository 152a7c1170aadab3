"""What the files of experiment trackers (TensorBoard, W&B, SwanLab, MLflow, Trackio) have in common: single points under prefixed names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from doctor.core.events import Step
from doctor.readers.file import File


def metric_name(key: str) -> str:
    """trainer_state.json's name of a metric that a tracker stores under `train/` or `eval/`."""
    if key.startswith("train/"):
        return key[6:]
    return f"eval_{key[5:]}" if key.startswith("eval/") else key


def steps_of(points: Iterable[tuple[int, str, float, float | None]], file: File) -> Iterator[Step]:
    """Join (step, name, value, time in Unix seconds) into steps: neighbours of one step become one `Step` with the first one's time.

    A name that comes twice at one step begins another `Step`.
    """
    current: Step | None = None
    for step, name, value, time in points:
        file.source.records += 1
        if current is not None and current.step == step and name not in current.metrics:
            current.metrics[name] = value
            continue
        if current is not None:
            yield current
        current = Step(where=file.where(step=step), step=step, metrics={name: value}, time=time)
    if current is not None:
        yield current
