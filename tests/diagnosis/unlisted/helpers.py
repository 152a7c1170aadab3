"""A text read as a console log: its exceptions and the run."""

from __future__ import annotations

from pathlib import Path

from doctor.core.events import Crash
from doctor.core.run import Run
from doctor.readers import reading


def read_console(text: str, folder: Path) -> tuple[list[Crash], Run]:
    """The exceptions in their order, and what else the log says of the run."""
    path = folder / "console.log"
    path.write_text(text + "\n", encoding="utf-8")
    run, crashes = Run(), []
    for event in reading.read([path], literals=frozenset()).batches():
        for one in event if isinstance(event, list) else [event]:
            run.apply(one)
            if isinstance(one, Crash):
                crashes.append(one)
    return crashes, run
