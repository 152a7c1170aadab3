"""A run in a tracker that can take a note, and the tracker's own library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from doctor.errors import DoctorError
from doctor.reporters.trackers.note import Note
from doctor.support.optional import of_the_training
from doctor.words import catalogue


@dataclass(frozen=True)
class Target:
    """`tracker` is its name, `place` the run in words for the user, `kind` what the note becomes there (a key of write_back.yaml).

    `write` raises DoctorError where the run cannot take it, and whatever the tracker's library raises.
    """

    tracker: str
    place: str
    kind: str
    write: Callable[[Note], None]


def library(module: str, package: str) -> Any:
    """A module of the tracker's own package. Raises DoctorError with the pip command if it is not installed here."""
    found = of_the_training(module)
    if found is None:
        raise DoctorError(catalogue.text("write_back.package", package=package))
    return found


def refused(name: str, **values: object) -> DoctorError:
    """The error for a run that cannot take a note, with its reason."""
    return DoctorError(catalogue.text(f"write_back.{name}", **values))
