"""SwanLab: a text chart in the run, which is resumed for it; only a run that SwanLab's server has can be.

https://docs.swanlab.cn/en/api/py-init.html; `swanlab.Api` reads only. The files that resuming writes go to a folder that is deleted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from doctor.readers.swanlab import started
from doctor.report.model import SourceView
from doctor.reporters.trackers.note import Note
from doctor.reporters.trackers.target import Target, library, refused

KEY = "lfdoctor/report"


def target(sources: list[SourceView]) -> Target:
    """The run of the newest `run-ID.swanlab`."""
    run = started(Path(sources[-1].path))
    place = "/".join(filter(None, (run.workspace, run.project, run.id)))
    return Target("SwanLab", place or sources[-1].path, "chart", lambda note: _log(note, run.workspace, run.project, run.id))


def _log(note: Note, workspace: str, project: str, run_id: str) -> None:
    swanlab = library("swanlab", "swanlab")
    api = swanlab.Api()  # raises without a login, where init would ask for one
    workspace = workspace or api.username
    if not (project and run_id) or not api.run(f"{workspace}/{project}/{run_id}").name:
        raise refused("not_on_server", tracker="SwanLab", command="swanlab sync FOLDER")
    with tempfile.TemporaryDirectory(prefix="lfdoctor-") as folder:
        swanlab.init(workspace=workspace, project=project, id=run_id, resume="must", mode="online", log_dir=folder)
        try:
            swanlab.log({KEY: swanlab.Text(note.text, caption=note.title)}, step=note.step)
        finally:
            swanlab.finish()
