"""The longest sequence of a run's data sets as facts for the memory estimate, and which files may be opened for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.core.events import Fact, Where
from doctor.core.run import Run

if TYPE_CHECKING:
    from doctor.dataset.longest import Longest

MayRead = Callable[[Path], bool]
"""Whether a file of a data set may be opened."""


def everything(path: Path) -> bool:  # noqa: ARG001 (the shape of MayRead)
    """Every file may be read."""
    return True


def nothing(path: Path) -> bool:  # noqa: ARG001 (the shape of MayRead)
    """No data set is looked for."""
    return False


def length_facts(found: Longest, where: Where) -> Iterator[Fact]:
    """The longest sequence for the estimate; nothing where it is not known."""
    if found.source:
        yield Fact(where=where, name="length", value=found.tokens)
        yield Fact(where=where, name="length.source", value=found.source)


def lengths_of(run: Run, folder: Path, where: Where, may_read: MayRead) -> Iterator[Fact]:
    """The longest sequence of small data sets, for a configuration that was not run yet and a GPU whose memory is known."""
    if not run.facts.get("gpu.total_gib"):
        return
    from doctor.dataset.longest import SMALL_BYTES, longest
    from doctor.dataset.sources import files_of, find_sources, info_file

    if not may_read(info_file(run.config, folder)):
        return
    sources = [source for source in find_sources(run.config, folder) if source.role == "train"]
    if all(may_read(file) for file in files_of(sources)):
        world = run.facts.get("world_size")
        yield from length_facts(longest(run.config, folder, world=world if isinstance(world, int) else 1, most_bytes=SMALL_BYTES), where)
