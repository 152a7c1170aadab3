"""What a console's beginning tells before it is read: the planned steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.core.events import Fact, Step
from doctor.readers.console.reader import Console
from doctor.readers.file import File, Source
from doctor.readers.reading import read

HEADER = "***** Running training *****\n  Num examples = 8\n  Num Epochs = 3\n  Total optimization steps = 12\n"


@pytest.mark.parametrize("before", ["", "loading\n", "x" * 3000 + "\n"])
def test_the_plan_is_found_wherever_the_header_stands(tmp_path: Path, before: str) -> None:
    """Also in the first byte of a log that was cut there."""
    path = tmp_path / "console.log"
    path.write_text(before + HEADER, encoding="utf-8")
    events = Console().configs(File(path, path.name, Source(path.name, Console.kind, path.stat().st_size)))
    told = {event.name: event.value for event in events if isinstance(event, Fact)}
    assert told["steps.planned"] == 12
    assert told["epochs.planned"] == 3


def header(total: int, epochs: int) -> str:
    """240 samples in batches of 8: an epoch has 30 steps."""
    return (
        f"***** Running training *****\n  Num examples = 240\n  Num Epochs = {epochs}\n"
        f"  Total train batch size (w. parallel, distributed & accumulation) = 8\n  Total optimization steps = {total}\n"
    )


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("total", "epochs", "every"), [(24, 1, 1), (40, 2, 1), (60, 2, 10)])
def test_an_epoch_has_all_its_steps_where_max_steps_ends_it_early(total: int, epochs: int, every: int, split: bool, tmp_path: Path) -> None:
    """transformers 4 prints epochs with two decimals and no step; with `max_steps` the header counts the last epoch as a whole one."""
    steps = list(range(every, total + 1, every))
    records = "".join(f"{{'loss': 2.5, 'grad_norm': 1.0, 'learning_rate': 1e-05, 'epoch': {round(step / 30, 2)}}}\n" for step in steps)
    first, second = tmp_path / "run.err", tmp_path / "run.out"
    first.write_text(header(total, epochs) + ("" if split else records), encoding="utf-8")
    if split:
        second.write_text(records, encoding="utf-8")
    read_steps = [event.step for event in read([first, second] if split else [first]).events() if isinstance(event, Step)]
    assert read_steps == steps
