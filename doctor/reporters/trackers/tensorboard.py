"""TensorBoard: an event file of our own beside the run's, with the report as text. Needs the package tensorboard, no TensorFlow.

The file's name ends with `.lfdoctor` (doctor/readers/tensorboard/reader.py passes over it). An earlier one of ours stays: TensorBoard shows
the newest.
"""

from __future__ import annotations

import time
from pathlib import Path

from doctor.readers.tensorboard.reader import OURS
from doctor.report.model import SourceView
from doctor.reporters.trackers.note import Note
from doctor.reporters.trackers.target import Target, library

TAG = "lfdoctor/report"


def target(sources: list[SourceView]) -> Target:
    """The folder of the event file that came last."""
    folder = Path(sources[-1].path).parent
    return Target("TensorBoard", str(folder), "event_file", lambda note: _write(note, folder))


def _write(note: Note, folder: Path) -> None:
    text_pb = library("tensorboard.plugins.text.summary_v2", "tensorboard").text_pb
    event = library("tensorboard.compat.proto.event_pb2", "tensorboard").Event
    writer = library("tensorboard.summary.writer.event_file_writer", "tensorboard").EventFileWriter(str(folder), filename_suffix=OURS)
    writer.add_event(event(wall_time=time.time(), step=note.step, summary=text_pb(TAG, f"**{note.title}**\n\n{note.text}")))
    writer.close()
