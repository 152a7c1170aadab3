"""What a console's beginning tells before it is read: the planned steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.core.events import Fact
from doctor.readers.console.reader import Console
from doctor.readers.file import File, Source

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
