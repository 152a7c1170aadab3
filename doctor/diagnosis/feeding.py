"""What an analysis of a run and a check of a configuration share: events into the engine, and what the report says of the files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from doctor.config import knowledge
from doctor.config.versions import parse
from doctor.core.events import Event, Fact, Step, Where
from doctor.diagnosis.engine import Engine
from doctor.errors import DoctorError
from doctor.report.model import SourceView
from doctor.rulebook.findings import RankedFinding
from doctor.words import catalogue

if TYPE_CHECKING:
    from doctor.diagnosis.unlisted.last_events import LastEvents
    from doctor.readers.file import Source

_QUOTES_WITH_CONTEXT = 3
"""Pieces of evidence per finding that are shown with the lines around them."""


def feed(engine: Engine, events: Iterable[Event | list[Step]], seen: LastEvents | None = None) -> None:
    """All events of a reading into the engine, and into `seen`."""
    for event in events:
        if isinstance(event, list):
            engine.feed_all(event)
        else:
            engine.take(event)
        if seen is not None:
            seen.see(event)


def given_version(version: str | None) -> Iterator[Fact]:
    """LLaMA-Factory's version as the user names it. Raises DoctorError (2) for what is none."""
    if version is None:
        return
    if not parse(version):
        raise DoctorError(catalogue.text("errors.no_version", version=repr(version), newest=knowledge.newest()))
    yield Fact(where=Where("--llamafactory-version"), name="versions.llamafactory", value=version)


def evidence_places(ranked: Sequence[RankedFinding]) -> Iterator[Where]:
    """The places to show with their surrounding lines: the first quotes of every finding above a note."""
    for ranked_finding in ranked:
        if ranked_finding.finding.severity != "note":
            yield from (piece.where for piece in ranked_finding.finding.evidence[:_QUOTES_WITH_CONTEXT])


def views_of(sources: Sequence[Source]) -> list[SourceView]:
    """The files that were looked at, as the report lists them."""
    return [SourceView(source.path, source.kind, source.bytes, source.records, list(source.problems)) for source in sources]
