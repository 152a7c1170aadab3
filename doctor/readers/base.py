"""What every reader is: the protocol of one file format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from doctor.core.events import MAX_INTEGER, MAX_STEP, Event, Fact, Step
from doctor.readers.file import File

Lane = Literal["config", "metrics", "text"]
"""What `Reader.read` can yield: nothing, steps only, or text and steps."""


class Context(msgspec.Struct):
    """What is known before the logs are read: the lines that rules want, the configuration, and facts.

    A line is wanted if it contains one of `literals` (None: every line).
    """

    literals: frozenset[str] | None = None
    config: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    """What a reader keeps for the run's next file of its format, by its own names."""


class Reader(Protocol):
    """One file format. A reader never raises on damaged input: it notes a problem in the file's source and yields what is whole."""

    kind: str
    lane: Lane

    def claims(self, path: Path, head: bytes) -> bool:
        """Whether the file is of this format; `head` holds its first 4 KiB, decompressed."""
        ...

    def configs(self, file: File) -> Iterator[Event]:
        """What the file says about the run as a whole (ConfigSeen, Fact); of a log, only what its beginning says."""
        ...

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        """Events in the file's order.

        A `Step` is what this one file says about a step, before files are joined; its `attempt` is counted when they are. A list holds
        many steps: with metrics, ascending, with times that do not go back.
        """
        ...


class ReaderBase:
    """Defaults; a reader overrides what its format has."""

    kind = ""
    lane: Lane = "config"
    output = False
    """Whether a training leaves such files in its output folder: a folder with one of them is a run (`lfdoctor scan`)."""

    def configs(self, file: File) -> Iterator[Event]:
        return iter(())

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        return iter(())

    def console(self, file: File) -> Iterator[bytes]:
        """The console output that a tracker's file contains; used if the run has no console log of its own."""
        return iter(())


def is_plausible(event: Event | list[Step]) -> bool:
    """Whether a step or a fact can be a run's: a damaged file may hold integers that no program counts to. Lists were looked at already."""
    if isinstance(event, Step):
        return 0 <= event.step < MAX_STEP
    if isinstance(event, Fact):
        return not isinstance(event.value, int) or abs(event.value) < MAX_INTEGER
    return True
