"""The training configuration that the user names: read alone, or beside the files of its run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doctor.config.files import regular_size
from doctor.errors import DoctorError
from doctor.readers.base import Reader
from doctor.readers.config_choice import Chosen, choose_config
from doctor.readers.config_yaml import ConfigYaml
from doctor.readers.file import File, Progress, Source
from doctor.words import catalogue


class GivenConfig:
    """`source` is its entry in the report's list of files. Raises DoctorError (2) if it cannot be opened."""

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        size = regular_size(path)
        try:
            path.open("rb").close()
        except OSError as error:
            raise DoctorError(catalogue.text("errors.cannot_read", path=path, reason=error.strerror or error)) from error
        self.source = Source(str(path), ConfigYaml.kind, size)
        self._file = File(path, str(path), self.source, progress=progress)

    def choose(self, files: Sequence[tuple[Reader, File]] = ()) -> Chosen:
        """It, and what these files of the run tell before the run. Raises DoctorError (2) if no options are in it."""
        chosen = choose_config(files, self._file)
        if not any(event.where.file == self._file.name for event in chosen.events):
            problem = "; ".join(self.source.problems) or catalogue.text("errors.no_options")
            raise DoctorError(catalogue.text("errors.no_config", path=self._file.name, reason=problem))
        return chosen
