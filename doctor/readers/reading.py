"""Files in, events out: `read(paths)` returns what a run left behind as one stream of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from doctor.core.events import ConfigSeen, Event, Fact, Sample, Step
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.readers import checkpoints, journal, merge, trackio
from doctor.readers.base import Context, Reader, is_plausible
from doctor.readers.config_choice import choose_config
from doctor.readers.file import File, Progress, Source
from doctor.readers.found_files import FoundFiles
from doctor.readers.given_config import GivenConfig
from doctor.readers.registry import READERS

BATCH = 1024
"""Steps in one list of `Reading.batches` at most."""
_SHOWN_PROBLEMS = 10


def read(
    paths: Sequence[str | Path],
    *,
    literals: frozenset[str] | None = None,
    config: Path | None = None,
    readers: Sequence[Reader] = READERS,
    progress: Progress | None = None,
) -> Reading:
    """Find what can be read under `paths` (folders, files, archives, URLs, `-` for standard input) and read the configuration.

    Only lines that contain one of `literals` become `LogLine`s (None: every line). Records, facts, tracebacks and failure blocks are read
    in any case. Of many lines that differ in their numbers only, some stand for all (`LogLine.repeats`).
    `config` is the user's own training YAML. `progress` is called for every chunk read.

    Raises DoctorError: 3 if there is nothing to read, 2 for a `config` that cannot be used.
    """
    reading = Reading(paths, Context(literals), readers, progress)
    if config is not None:
        reading.use_config(config)
    reading.prepare()
    return reading


WANTED = "Give the run's output_dir, its console log, trainer_log.jsonl or event file, or - for standard input"
"""What a user can name instead of something without a run."""


class Reading:
    """One pass over a run's files. `sources` fill while `events()` or `batches()` is consumed."""

    def __init__(self, paths: Sequence[str | Path], context: Context, readers: Sequence[Reader], progress: Progress | None = None) -> None:
        self.root = str(paths[0]) if len(paths) == 1 else ", ".join(str(path) for path in paths)
        self.config_source: tuple[str, str] | None = None
        self._context, self._progress = context, progress
        self._given: GivenConfig | None = None
        self._before_run: list[Event] = []
        self._found = FoundFiles(readers, progress)
        self.skipped = self._found.skipped
        self.other_runs: list[str] = []
        for path in paths:
            self._found.add(path)

    @property
    def sources(self) -> list[Source]:
        """All files that were looked at, with what was read of them."""
        return self._found.sources

    def use_config(self, path: Path) -> None:
        """Use the user's own training configuration. Raises DoctorError (2) if it cannot be opened."""
        self._given = GivenConfig(path, self._progress)
        self._found.replace(path, self._given.source)

    def prepare(self) -> None:
        """Read configurations and facts. Raises DoctorError: 3 if no file was recognised, 2 if the given configuration has no options."""
        self._found.add_tracked_consoles()
        for folder in checkpoints.of_other_runs(self._found.files):
            self._found.drop_folder(folder)
            self.other_runs.append(str(folder))
        for path in journal.of_other_runs([file.path for reader, file in self._found.files if reader.kind == journal.Journal.kind]):
            self._found.drop_file(path)
            self.other_runs.append(str(path))
        for path in trackio.of_other_projects([file.path for reader, file in self._found.files if reader.kind == trackio.Trackio.kind]):
            self._found.drop_file(path)
            self.other_runs.append(str(path))
        if self._given is None:
            self._found.add_named_configs()
        if self._given is None and not self._found.files:
            reasons = "".join(
                f"\n  {source.path}: {'; '.join(source.problems)}" for source in self.sources[:_SHOWN_PROBLEMS] if source.problems
            )
            raise DoctorError(f"{self.root}: found nothing that a training run leaves behind{reasons}. {WANTED}", NOTHING_TO_READ)
        chosen = choose_config(self._found.files) if self._given is None else self._given.choose(self._found.files)
        self._before_run, self.config_source = chosen.before_run(), chosen.yaml
        for event in self._before_run:
            if isinstance(event, ConfigSeen):
                self._context.config.update(event.values)
            elif isinstance(event, Fact):
                self._context.facts[event.name] = event.value

    def events(self) -> Iterator[Event]:
        """`batches`, one event at a time."""
        for event in self.batches():
            if isinstance(event, list):
                yield from event
            else:
                yield event

    def batches(self) -> Iterator[Event | list[Step]]:
        """All events: ConfigSeen first, then facts of the whole run, text in its order, and the joined steps in theirs, in lists.

        Text and steps have no common order.
        """
        yield from self._before_run
        logs = [(reader, file) for reader, file in self._found.files if reader.lane != "config"]
        logs.sort(key=lambda log: log[1].path.name == journal.OF_THE_END)  # what the run was doing then is in the other files
        if len(logs) == 1:
            yield from self._single_source(*logs[0])
            return
        sources: list[tuple[str, list[Step]]] = []
        rotated: dict[Path, list[Step]] = {}
        for reader, file in logs:
            records: list[Step] = rotated.pop(file.path.with_suffix(f".1{file.path.suffix}"), [])
            continued = bool(records)
            for event in filter(is_plausible, reader.read(file, self._context)):
                if isinstance(event, list):
                    records += event
                elif isinstance(event, Step):
                    records.append(event)
                else:
                    yield event
            if not continued:
                sources.append((reader.kind, records))
            if reader.kind == "journal":  # the journal's rotated predecessor is read first; both are one process
                rotated[file.path] = records
        joined = merge.join(merge.per_kind(sources))
        while steps := list(islice(joined, BATCH)):
            yield steps

    def _single_source(self, reader: Reader, file: File) -> Iterator[Event | list[Step]]:
        """The events of a run with one log: nothing to join, constant memory."""
        sequencer = merge.Sequencer()
        steps: list[Step] = []
        for event in filter(is_plausible, reader.read(file, self._context)):
            if isinstance(event, list):
                steps += sequencer.feed_all(event)
            elif isinstance(event, Step):
                if event.metrics and (step := sequencer.feed(event)) is not None:
                    steps.append(step)
            elif isinstance(event, Sample) and steps:
                yield from (steps, event)
                steps = []
            else:
                yield event
            if len(steps) >= BATCH:
                yield steps
                steps = []
        if sequencer.current is not None:
            steps.append(sequencer.current)
        if steps:
            yield steps
