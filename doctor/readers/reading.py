"""Files in, events out: `read(paths)` tells what a run left behind as one stream. Adding a format = one file and one line here."""

from __future__ import annotations

import io
import re
import shutil
import sys
import weakref
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from doctor.core.events import ConfigSeen, Event, Fact, Sample, Step
from doctor.errors import BAD_USAGE, NOTHING_TO_READ, DoctorError
from doctor.readers import merge, remote
from doctor.readers.accelerate import Accelerate
from doctor.readers.adapter_config import AdapterConfig
from doctor.readers.base import Context, File, IteratorStream, Reader, ReaderBase, Source, packed, unpacked_head, utf16
from doctor.readers.command import Command
from doctor.readers.config_yaml import ConfigYaml, is_yaml
from doctor.readers.console.error_file import ErrorFile
from doctor.readers.console.reader import Console
from doctor.readers.deepspeed import DeepSpeed
from doctor.readers.discovery import Skipped, natural_sort_key, walk
from doctor.readers.journal import Journal
from doctor.readers.model_card import ModelCard
from doctor.readers.results import Results
from doctor.readers.snapshots import FlightRecorder, MemorySnapshot
from doctor.readers.stacks import Stacks
from doctor.readers.swanlab import SwanLab, SwanLabConfig
from doctor.readers.tensorboard.reader import TensorBoard
from doctor.readers.trainer_log import TrainerLog
from doctor.readers.trainer_state import TrainerState
from doctor.readers.training_args import TrainingArgs
from doctor.readers.wandb import Wandb, WandbConfig
from doctor.support.literal_search import LinePatterns
from doctor.support.optional import pip_install

READERS: tuple[Reader, ...] = (
    Journal(),
    TrainerLog(),
    TrainerState(),
    TensorBoard(),
    Wandb(),
    WandbConfig(),
    SwanLab(),
    SwanLabConfig(),
    TrainingArgs(),
    Results(),
    AdapterConfig(),
    ModelCard(),
    DeepSpeed(),
    Accelerate(),
    ErrorFile(),
    MemorySnapshot(),
    FlightRecorder(),
    Stacks(),
    ConfigYaml(),
    Command(),
    Console(),
)
"""In the order in which they are asked whether a file is theirs; the console takes what looks like a log and is nobody else's."""

_STRETCH = 1024
"""So many steps go on together."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_TEXT_BYTES = bytes(byte for byte in range(256) if byte >= 32 or byte in b"\t\n\r\f\b\x1b")
_STREAMS = {".out": 0, ".stdout": 0, ".err": 1, ".stderr": 1}


def read(
    paths: Sequence[str | Path],
    *,
    literals: frozenset[str] | None = None,
    line_patterns: LinePatterns | None = None,
    config: Path | None = None,
    readers: Sequence[Reader] = READERS,
    allow_subprocess: bool = False,
) -> Reading:
    """Finds what can be read under `paths` (folders, files, `-` for standard input) and reads the configuration.

    `literals`: only lines that hold one of them become `LogLine`s (None: every line); records, facts, tracebacks and failure blocks
    are understood in any case. `sieve` may tell more narrowly which lines, for logs in which many lines hold literals. `config` is the
    user's own training YAML. `helped`: a large log may be looked through by a second process. Raises DoctorError: 3 where there is
    nothing to read, 2 for a `config` that cannot be used.
    """
    reading = Reading(paths, Context(literals, line_patterns, allow_subprocess), readers)
    if config is not None:
        reading.use_config(config)
    reading.prepare()
    return reading


class Reading:
    """One pass over a run's files. `sources` fill while `events()` is consumed."""

    def __init__(self, paths: Sequence[str | Path], context: Context, readers: Sequence[Reader]) -> None:
        self.root = str(paths[0]) if len(paths) == 1 else ", ".join(str(path) for path in paths)
        self.sources: list[Source] = []
        self.config_source: tuple[str, str] | None = None
        self._context = context
        self._readers = readers
        self._found: list[tuple[Reader, File]] = []
        self._first: list[Event] = []
        self._given: File | None = None
        self.skipped = Skipped()
        for path in paths:
            self._add(path)

    def use_config(self, path: Path) -> None:
        """Takes the user's own training configuration; DoctorError (2) where it cannot be used."""
        try:
            size = path.stat().st_size
            path.open("rb").close()
        except OSError as error:
            raise DoctorError(f"{path}: cannot read this configuration: {error.strerror or error}", BAD_USAGE) from error
        source = Source(str(path), ConfigYaml.kind, size)
        self._given = File(path, str(path), source)
        self._found = [(reader, file) for reader, file in self._found if not _same_file(file.path, path)]
        self.sources = [source, *(one for one in self.sources if one.path != str(path))]

    def prepare(self) -> None:
        """Reads what is known before the run: configurations and facts. DoctorError (3) where no file could be recognised."""
        self._add_kept_consoles()
        if self._given is not None:
            events = list(ConfigYaml().configs(self._given))
            if not events:
                problem = "; ".join(self._given.source.problems) or "no LLaMA-Factory options in it"
                raise DoctorError(f"{self._given.name}: not a training configuration: {problem}", BAD_USAGE)
            self._first += events
            self._remember_config(self._given, events)
        elif not self._found:
            reasons = "".join(f"\n  {one.path}: {'; '.join(one.problems)}" for one in self.sources[:10] if one.problems)
            raise DoctorError(f"{self.root}: found nothing that a training run leaves behind{reasons}", NOTHING_TO_READ)
        self._read_configs()
        for event in self._first:
            if isinstance(event, ConfigSeen):
                self._context.config.update(event.values)
            elif isinstance(event, Fact):
                self._context.facts[event.name] = event.value

    def events(self) -> Iterator[Event]:
        """One by one what `stretches` gives."""
        for event in self.batches():
            if isinstance(event, list):
                yield from event
            else:
                yield event

    def batches(self) -> Iterator[Event | list[Step]]:
        """ConfigSeen first, facts of the whole run, text in its order, the joined steps in theirs, many at once (the two lanes have no
        common order).
        """
        yield from sorted(self._first, key=lambda event: not isinstance(event, ConfigSeen))
        telling = [(reader, file) for reader, file in self._found if reader.lane != "config"]
        if len(telling) == 1:
            yield from self.single_source(*telling[0])
            return
        witnesses: list[tuple[str, list[Step]]] = []
        for reader, file in telling:
            records: list[Step] = []
            for event in reader.read(file, self._context):
                if isinstance(event, list):
                    records += event
                elif isinstance(event, Step):
                    records.append(event)
                else:
                    yield event
            witnesses.append((reader.kind, records))
        joined = merge.join(merge.per_witness(witnesses))
        while steps := list(islice(joined, _STRETCH)):
            yield steps

    def single_source(self, reader: Reader, file: File) -> Iterator[Event | list[Step]]:
        """A single log: nothing to join, constant memory."""
        sequencer = merge.Sequencer()
        steps: list[Step] = []
        for event in reader.read(file, self._context):
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
            if len(steps) >= _STRETCH:
                yield steps
                steps = []
        if sequencer.held is not None:
            steps.append(sequencer.held)
        if steps:
            yield steps

    def _add(self, path: str | Path) -> None:
        if str(path) == "-":
            self._add_stdin()
            return
        root = Path(path)
        if remote.is_url(str(path)):
            self._add_brought(remote.fetch(str(path), self.skipped), str(path))
        elif root.is_dir():
            for one in walk(root, self.skipped):
                self._claim(one, explicit=False)
        elif root.is_file() and remote.is_archive(root):
            self._add_brought(remote.unpack(root, self.skipped), str(path))
        elif root.is_file():
            self._claim(root, explicit=True)
        else:
            what = "is neither a file nor a folder" if root.exists() else "no such file or folder"
            raise DoctorError(f"{path}: {what}", NOTHING_TO_READ)
        self._found.sort(key=_order)

    def _add_brought(self, folder: Path, name: str) -> None:
        """What was unpacked or fetched, under the name that the user knows; the copies go when the reading does."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        files = list(walk(folder, self.skipped))
        for one in files:
            inside = one.relative_to(folder).as_posix()
            shown = name if len(files) == 1 and remote.is_url(name) and name.endswith(inside) else f"{name.rstrip('/')}/{inside}"
            self._claim(one, explicit=len(files) == 1, shown=shown)

    def _add_stdin(self) -> None:
        source = Source("-", "", 0)
        file = File(Path("-"), "-", source, stream=sys.stdin.buffer)
        head = file.peek(4096)
        guesses = (one for name in ("-.jsonl", "-.json") for one in self._readers if one.lane == "metrics" and one.claims(Path(name), head))
        reader = next(guesses, Console())
        source.kind = reader.kind
        self.sources.append(source)
        if head:
            self._found.append((reader, file))

    def _claim(self, path: Path, *, explicit: bool, shown: str | None = None) -> None:
        """Gives the file to the reader that knows it; notes pointers and what a user named but nobody can read."""
        head = unpacked_head(path)
        shown = str(path) if shown is None else shown
        source = Source(shown, "", _size(path))
        reader = next((one for one in self._readers if one.claims(path, head)), None)
        if head.startswith(_POINTER):
            if reader is not None or explicit:
                source.kind = "git-LFS pointer"
                source.problem("git-LFS pointer: the file itself is not here (git lfs pull)")
                self.sources.append(source)
            return
        if packed(head) == "zstd":  # still: the library is missing
            source.kind = "zstd"
            source.problem(f"not read: zstd needs the package zstandard: {pip_install('zstd')}")
            self.sources.append(source)
            return
        if reader is None and explicit:
            reader = _last_resort(head, source)
        if reader is not None:
            source.kind = reader.kind
            self._found.append((reader, File(path, shown, source)))
        elif not explicit:
            self.skipped.note("not known" if head else "empty", shown)
        if reader is not None or explicit:
            self.sources.append(source)

    def _add_kept_consoles(self) -> None:
        """A console that a tracker's file keeps; only where there is no other, which would tell the same."""
        if any(reader.kind == Console.kind for reader, _ in self._found):
            return
        for reader, kept in list(self._found):
            if not isinstance(reader, ReaderBase):
                continue
            name = f"{kept.name} (console)"
            source = Source(name, Console.kind, 0)
            file = File(kept.path, name, source, stream=io.BufferedReader(IteratorStream(reader.console(kept))))
            if file.peek(1):
                self.sources.append(source)
                self._found.append((Console(), file))

    def _read_configs(self) -> None:
        """Of several training configurations the likeliest is this run's; the others are named among the sources and left."""
        command = Command()
        candidates: list[tuple[File, list[Event]]] = []
        for reader, file in self._found:
            if reader.kind == ConfigYaml.kind:
                if self._given is None:
                    candidates.append((file, list(reader.configs(file))))
                else:
                    file.source.problem("not used: another configuration was given")
                continue
            self._first += reader.configs(file)
            if reader.kind == Console.kind:
                self._first += command.configs(file)
        chosen = max(candidates, key=lambda one: self.config_score(*one), default=None)
        for file, events in candidates:
            if chosen is not None and file is chosen[0]:
                self._first += events
                self._remember_config(file, events)
            elif events:
                file.source.problem("not used: another training configuration fits this run better")
        self._choose_deepspeed()

    def config_score(self, file: File, events: list[Event]) -> tuple[int, ...]:
        values = next((event.values for event in events if isinstance(event, ConfigSeen)), None)
        if values is None:
            return (-1,)
        folder = Path(str(values.get("output_dir", ""))).name
        named = any(file.path.name in str(getattr(event, "value", "")) for event in self._first)
        beside = any(folder and folder in other.path.parts for _, other in self._found)
        trains = sum(key in values for key in ("do_train", "stage", "model_name_or_path"))
        return (named, beside, trains, -len(file.path.parts), len(values))

    def _remember_config(self, file: File, events: list[Event]) -> None:
        text = file.text(1 << 20)
        if text is not None and any(isinstance(event, ConfigSeen) for event in events) and is_yaml(text):
            self.config_source = (file.name, text)

    def _choose_deepspeed(self) -> None:
        """Several DeepSpeed files may lie about: the one that the configuration names, or the only one."""
        named: Any = None
        for event in self._first:
            if isinstance(event, ConfigSeen):
                named = event.values.get("deepspeed", named)
        facts = [event for event in self._first if getattr(event, "name", "").startswith("deepspeed.")]
        files = {event.where.file for event in facts}
        fitting = {file for file in files if isinstance(named, str) and Path(file).name == Path(named).name} or files
        keep = fitting if len(fitting) == 1 else set()
        self._first = [event for event in self._first if event not in facts or event.where.file in keep]


def _order(found: tuple[Reader, File]) -> tuple[Any, ...]:
    """Logs last, standard output before standard error of one job, otherwise by name as people number things."""
    reader, file = found
    suffix = file.path.suffix.lower()
    stem = re.sub(r"(?i)std(?:out|err)", "std", file.path.stem if suffix in _STREAMS else file.path.name)
    stream = _STREAMS.get(suffix, "err" in file.path.name.lower())
    return (reader.lane == "text", natural_sort_key(str(file.path.parent)), natural_sort_key(stem), stream)


def _last_resort(head: bytes, source: Source) -> Reader | None:
    """A file that the user named and nobody claims is a log, if it is text."""
    if not head:
        source.problem("is empty" if source.bytes == 0 else "cannot be read")
        return None
    if utf16(head) is None and len(head.translate(None, _TEXT_BYTES)) * 50 > len(head):
        source.problem("binary data in a format that is not known")
        return None
    return Console()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False
