"""`lfdoctor analyze RUN --write-back`: the verdict into the tracker that the run used, after showing what would be written and asking."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import typer

from doctor.errors import BAD_USAGE, DoctorError

if TYPE_CHECKING:
    from doctor.report.model import Report
    from doctor.reporters.trackers.note import Note
    from doctor.reporters.trackers.target import Target


def write_back(report: Report, *, yes: bool) -> int:
    """Show what goes where on standard error, ask unless `yes`, write. Nothing is written without a terminal that could be asked.

    Returns 2 if a tracker could not take it, else 0: one that fails does not keep the others from it. Raises DoctorError without a tracker.
    """
    from doctor.reporters.trackers.note import Note
    from doctor.reporters.trackers.registry import targets
    from doctor.words import catalogue

    found = list(targets(report))
    if not found:
        raise DoctorError(catalogue.text("write_back.no_tracker"))
    for one in found:
        _say(report.lang, "plan", tracker=one.tracker, place=one.place, what=catalogue.text(f"write_back.{one.kind}"))
    if not yes and not sys.stdin.isatty():
        _say(report.lang, "not_written")
        return 0
    if not yes and not typer.confirm(catalogue.say("write_back.ask", report.lang), err=True):
        return 0
    note = Note.of(report)
    return BAD_USAGE if [one for one in found if not _written(one, note, report.lang)] else 0


def _written(target: Target, note: Note, lang: str) -> bool:
    """Whether the tracker took it; otherwise its reason is told."""
    try:
        with redirect_stdout(sys.stderr):  # standard output holds the report alone
            target.write(note)
    except DoctorError as error:
        _say(lang, "failed", tracker=target.tracker, place=target.place, reason=error.in_language(lang))
        return False
    except Exception as error:  # any error of the tracker's library: no login, no network, another version
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        _say(lang, "failed", tracker=target.tracker, place=target.place, reason=reason)
        return False
    _say(lang, "written", tracker=target.tracker, place=target.place)
    return True


def _say(lang: str, name: str, **values: object) -> None:
    """A line on standard error; what comes from a server's error is masked as a report is."""
    from doctor.privacy.secrets import mask
    from doctor.words import catalogue

    typer.echo(f"lfdoctor: {mask(catalogue.say(f'write_back.{name}', lang, **values))}", err=True)
