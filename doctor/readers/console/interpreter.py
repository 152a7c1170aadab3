"""Text of a console, line by line, into events: tracebacks, printed metrics, process ends, facts, phases, and the lines that rules want."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from doctor.core.events import Crash, Event, Fact, LogLine, Step
from doctor.core.phases import Phase, phase_of
from doctor.readers.base import Context
from doctor.readers.console import facts, process_exits
from doctor.readers.console.ipython import HEADER_NAME
from doctor.readers.console.line_filter import ALWAYS, FACT, STATES, WANTED
from doctor.readers.console.line_head import level, timestamp
from doctor.readers.console.lines import Prefixes
from doctor.readers.console.model_config import ModelConfigBlock
from doctor.readers.console.records import MetricRecord, printed
from doctor.readers.console.step_inference import StepInference
from doctor.readers.console.tracebacks import HEADER, Raised, Tracebacks
from doctor.readers.file import File, decode
from doctor.readers.values import SUMMARY_FACTS
from doctor.support.pasted_text import restored

_HEADER_PREFIXES = ("Original", "Group", "─", "traceback :", "|", "+")
"""Text before a traceback's header that is part of the traceback; other text is a line of its own."""
_MAX_LANES = 4096
"""Lanes (ranks, hosts) with a traceback parser of their own; more share one."""
_MESSAGE_SILENCE = 8
"""Lines of other lanes after which an exception's message counts as complete."""
_MAX_FACT_LINE = 2000
"""Characters; longer lines have no facts and no process ends."""
_STARTS = ("Process rank: 0,", "distributed tasks at", "DistributedInterface initialized")
"""What the first process of a training prints once."""
_TRAINING_RESUMES: tuple[Phase | None, ...] = (None, "start", "load", "tokenise", "save", "eval")
"""Phases that end with a record of the training."""


class Interpreter:
    """The state of one console: open blocks of each lane, the phase, the attempt, the steps of printed records.

    `number` is the current line (1-based); the line reader counts it. `repeats`: lines that stand for several, and for how many.
    """

    def __init__(self, file: File, context: Context) -> None:
        self.file = file
        self.steps = StepInference(context.config, context.facts)
        self.phase: Phase | None = None
        self.number = 1
        self._prefixes = Prefixes()
        self._tracebacks: dict[str, Tracebacks] = {}
        self._open_lanes: dict[str, None] = {}  # in the order in which they opened
        self._ends = process_exits.Ends()
        self._model_config = ModelConfigBlock()
        self._attempt = 0
        self._trained = self._failed = self._completed = False
        self._time: float | None = None
        self.repeats: dict[int, int] = {}
        self._planned: int | None = None

    @property
    def in_traceback(self) -> bool:
        """Whether a traceback is open in any lane."""
        return bool(self._open_lanes)

    @property
    def in_block(self) -> bool:
        """Whether the next line may belong to a traceback, a failure block or a printed model, whatever it looks like."""
        return bool(self._open_lanes) or self._ends.in_block or self._model_config.lane is not None

    @property
    def lacks_exception(self) -> bool:
        """Whether a traceback is open that waits for its exception."""
        return any(self._tracebacks[lane].silent_since is None for lane in self._open_lanes)

    @property
    def in_model(self) -> bool:
        """Whether a printed model is open, and nothing else."""
        return self._model_config.lane is not None and not self._open_lanes and not self._ends.in_block

    def model_lines(self, lines: list[bytes]) -> Iterator[Event]:
        """Events of lines without prefix that can only be part of the open model; the last of them may end it."""
        if self._model_config.lane == "" and (model := self._model_config.feed(*map(decode, lines))) is not None:
            yield self.fact("model.config", model)

    def text(self, text: str, known: int) -> Iterator[Event]:
        """Events of one line of this class (line_filter.py)."""
        lane, rank, rest = self._prefixes.split(text)
        if not known & ALWAYS and not self.in_block and (lane not in self._tracebacks or self._tracebacks[lane].idle):
            if known & WANTED and rest.strip():
                yield self.log_line(rest, rank)
            return
        if HEADER in rest:
            before = rest[: rest.index(HEADER)]
            if before.strip() and not any(sign in before for sign in _HEADER_PREFIXES) and not HEADER_NAME.match(before):
                yield from self._line(lane, rank, before, known)
                rest = rest[len(before) :]
        yield from self._line(lane, rank, rest, known)

    def record(self, record: MetricRecord, text: str) -> Iterator[Event]:
        """Events of a printed metric record."""
        if "train_runtime" in record.metrics and "loss" not in record.metrics:
            self.file.source.records += 1
            yield from self._summary(record)
            return
        if record.total and record.total != self._planned and "loss" in record.metrics:
            self._planned = record.total
            yield self.fact("steps.planned", record.total)
        # the time of an earlier line is not the time of this step
        yield from self.training_steps(record, self._clock(text))

    def training_steps(self, record: MetricRecord, time: float | None) -> list[Step]:
        """The steps that are known after this record of the training."""
        if self.phase in _TRAINING_RESUMES:
            self.phase = "train"
        self._trained = True
        self.file.source.records += 1
        return self.steps.feed(record, self.file.where(self.number), time)

    def log_line(self, text: str, rank: int | None = None) -> LogLine:
        """The line as an event."""
        self._clock(text)
        where = self.file.where(self.number)
        return LogLine(
            where=where,
            rank=rank,
            attempt=self._attempt,
            time=self._time,
            text=text.rstrip(),
            level=level(text),
            phase=self.phase,
            repeats=self.repeats.pop(self.number, 1),
        )

    def close_messages(self, before: int | None = None) -> Iterator[Crash]:
        """Close the tracebacks that wait for no exception; if `before`, only those of named lanes that were silent since that line."""
        for lane in list(self._open_lanes):
            parser = self._tracebacks[lane]
            if (last := parser.silent_since) is not None and (before is None or (lane and last < before)):
                for raised in parser.close():
                    yield self._crash(raised, parser.rank)
                self._open_lanes.pop(lane, None)

    def close_silent(self) -> Iterator[Crash]:
        """Close the tracebacks of lanes that have long been silent."""
        return self.close_messages(self.number - _MESSAGE_SILENCE)

    def close(self) -> Iterator[Event]:
        """The end of the text."""
        left = [(raised, parser.rank) for parser in self._tracebacks.values() for raised in parser.close()]
        for raised, rank in sorted(left, key=lambda entry: entry[0].line):
            yield self._crash(raised, rank)
        yield from (msgspec.structs.replace(end, phase=self.phase) for end in self._ends.close())
        yield from self.steps.flush()
        if self.phase is not None:
            yield self.fact("console.last_phase", self.phase)

    def _line(self, lane: str, rank: int | None, text: str, known: int) -> Iterator[Event]:
        """One line without prefix: part of a printed model or a traceback, a record, or just a line."""
        if self._model_config.lane == lane and (model := self._model_config.feed(text)) is not None:
            yield self.fact("model.config", model)
        consumed, raised = self._traceback(lane, rank, text, known)
        for exception in raised:
            yield from self.close_messages(exception.line)
            yield self._crash(exception, rank)
        if consumed:
            if "traceback :" in text:
                yield from self._process_ends(text, rank)
            return
        if not text.strip():
            return
        record = printed(text)
        if record is not None and record.metrics:
            yield from self.record(record, text)
        elif len(text) < _MAX_FACT_LINE:
            yield from self._process_ends(text, rank)
            self._model_config.begin(lane, text)
            if known & (FACT | STATES):
                yield from self._facts(text)
        if known & WANTED:
            yield self.log_line(text, rank)

    def _traceback(self, lane: str, rank: int | None, text: str, known: int) -> tuple[bool, list[Raised]]:
        """Whether the line is part of a traceback, and the exceptions that it completes."""
        if not lane and (owner := self._without_prefix(text)) is not None:
            lane, rank = owner, self._tracebacks[owner].rank
        parser = self._tracebacks.get(lane)
        if parser is None:
            if len(self._tracebacks) >= _MAX_LANES:
                lane = ""
            parser = self._tracebacks.setdefault(lane, Tracebacks())
        if known & ALWAYS and parser.silent_since is not None and facts.has_fact(text):
            self._open_lanes.pop(lane, None)
            return False, parser.close()
        consumed, raised = parser.feed(restored(text), self.number)
        if rank is not None:
            parser.rank = rank
        if parser.active:
            self._open_lanes.setdefault(lane)
        else:
            self._open_lanes.pop(lane, None)
        return consumed, raised

    def _without_prefix(self, text: str) -> str | None:
        """The lane whose traceback this line ends, although its prefix was lost; None if several could be meant."""
        lanes = [lane for lane in self._open_lanes if lane and self._tracebacks[lane].lacks(text)] if self._open_lanes else []
        return lanes[0] if len(lanes) == 1 and "" not in self._open_lanes else None

    def _crash(self, raised: Raised, rank: int | None) -> Crash:
        self._failed = True
        self.file.source.records += 1
        return Crash(
            where=self.file.where(raised.line),
            rank=rank if rank is not None else self._ends.rank,
            attempt=self._attempt,
            time=self._time,
            exception=raised.exception,
            message=raised.message,
            frames=raised.frames,
            phase=phase_of([frame.function for frame in raised.frames]) or self.phase,
            chain=raised.chain,
            repeats=self.repeats.pop(raised.line, 1),
        )

    def _clock(self, text: str) -> float | None:
        """The time of this line; the latest one is the time of events without their own."""
        if (time := timestamp(text)) is not None:
            self._time = time
        return time

    def _summary(self, record: MetricRecord) -> Iterator[Event]:
        for name, fact in SUMMARY_FACTS.items():
            if name in record.metrics:
                yield self.fact(fact, record.metrics[name])
        if "train_loss" in record.metrics:
            self._completed = True
            yield self.fact("run.completed", True)

    def _process_ends(self, text: str, rank: int | None) -> Iterator[Event]:
        for end in self._ends.feed(text, self.file.where(self.number), rank, self._attempt):
            yield msgspec.structs.replace(end, phase=self.phase)

    def _facts(self, text: str) -> Iterator[Event]:
        found, phase = facts.parse_facts(text)
        if any(name == "run.started_training" for name, _ in found) or any(words in text for words in _STARTS):
            yield from self._begin_attempt()
        if phase is not None:
            self.phase = phase
        for name, value in found:
            yield self.fact(name, value)
            self.steps.learn(name, value)
            self._completed = self._completed or name == "run.completed"

    def _begin_attempt(self) -> Iterator[Event]:
        """A start marker begins another attempt if this one has already trained or failed."""
        if not (self._trained or self._failed):
            return
        yield from self.steps.flush()
        self.steps.restart()
        self._attempt += 1
        self._trained = self._failed = False
        if self._completed:
            self._completed = False
            yield self.fact("run.completed", False)

    def fact(self, name: str, value: object) -> Fact:
        """A fact that the current line states."""
        return Fact(where=self.file.where(self.number), attempt=self._attempt, time=self._time, name=name, value=value)
