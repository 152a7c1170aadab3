"""Console logs: what a terminal, `nohup`, Slurm, torchrun or the web UI kept of a run's standard output and error."""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from doctor.core.events import Crash, Event, Fact, LogLine, Step
from doctor.core.phases import Phase, phase_of
from doctor.readers.base import Context, File, Lane, ReaderBase, decode, plain_name, utf16
from doctor.readers.console import facts, process_exits
from doctor.readers.console.finder import MANY, Finder, State, Wanted
from doctor.readers.console.ipython import ARROW, HEADER_NAME
from doctor.readers.console.lines import CUT, LineFilter, Prefixes, bar_step, clean, labelled_bar, plain_bar, unglue
from doctor.readers.console.records import MetricRecord, plain, printed
from doctor.readers.console.scan import SMALL, Found, bars, blocks, last_segment, relevant_part, text_only
from doctor.readers.console.step_inference import StepInference
from doctor.readers.console.tracebacks import CUT as CUT_FRAME
from doctor.readers.console.tracebacks import HEADER, Raised, Tracebacks

if TYPE_CHECKING:
    from doctor.readers.console.prefilter_process import PrefilterProcess

_STRUCTURE = (
    *facts.WORDS, *process_exits.WORDS, HEADER, ARROW, CUT_FRAME, 'File "',
    "Error", "Exception", "Interrupt", "Invalid", "Exit", "StopIteration",
    "RemoteTraceback",
    "During handling of", "The above exception", "loss", "Loss", "'eval_", "'reward'", "train_runtime", "Config {", "current_steps",
)  # fmt: skip
_NAMES = re.compile(r"(?i)(?:^|[._-])(?:log|out|err|stdout|stderr|console|output|nohup|std_log)(?:[._-]|$)")
_OTHERS = re.compile(r"(?:^|/)(?:(?:wandb|swanlog|(?:offline-)?run-[^/]*)/(?:[^/]*/)*)debug[\w-]*\.log$")
"""What W&B and SwanLab write about themselves."""
_SWANLAB_POINT = b'{"index": '
_TEXTS = (".log", ".out", ".err", ".stdout", ".stderr", ".txt", "")
_SIGNS = (
    b"Traceback (most recent",
    b"[INFO|",
    b"[WARNING|",
    b"it/s]",
    b"s/it]",
    b"{'loss'",
    b"llamafactory",
    b"torchrun",
    b" - INFO - ",
    b"[rank",
    b"NVRM: Xid",
    b"oom-kill",
    b"Out of memory: Kill",
    b"NVIDIA-SMI",
    b"slurmstepd: error",
)
_LEVEL = re.compile(r"(?<![A-Za-z])(DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL)(?![A-Za-z])")
_GLOG = re.compile(r"\[?([WEIF])\d{4} ")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T _](\d\d):(\d\d):(\d\d)")
_AMERICAN = re.compile(r"(\d\d)/(\d\d)/(\d{4}) (\d\d):(\d\d):(\d\d)")
_CONFIG = re.compile(r"\b\w+Config \{\s*$")
_GLUED_HEADER = ("Original", "Group", "─", "traceback :", "|", "+")
_GLUED = re.compile(rb"(?<=it/s\]|s/it\])")
_PLAN = ("steps.planned", "epochs.planned", "steps.per_epoch")
_HEADER_WITHIN = 1 << 20
_CLEARED = 10
"""tqdm clears a bar with so many blanks at least before something is printed."""
_PIECE = 1 << 17
"""So many bytes are looked at line by line before it is asked again whether a finder is worth while."""
_MAX_LANES = 4096
_SILENCE = 8
"""Lines of other ranks after which an exception's message is taken to be complete."""


class Console(ReaderBase):
    """Claims anything that looks like a log; `read` gives text events and the records of the printed metrics, in the file's order."""

    kind = "console"
    lane: Lane = "text"

    def claims(self, path: Path, head: bytes) -> bool:
        name = plain_name(path)
        if _OTHERS.search(path.as_posix()) or head.startswith(_SWANLAB_POINT):
            return False
        if (b"\0" in head[:2048] and utf16(head) is None) or name.lower().startswith(("readme", "license")):
            return False
        suffix = Path(re.sub(r"(?:\.rev-\w+|\.\d+)$", "", name)).suffix.lower()
        named = _NAMES.search(name) is not None and suffix not in (".json", ".jsonl", ".yaml", ".yml", ".md", ".sh", ".bin")
        return named or (suffix in _TEXTS and any(sign in head for sign in _SIGNS))

    def configs(self, file: File) -> Iterator[Event]:
        """The plan that the header of the training prints: another file of the same run may hold the records."""
        head = decode(file.peek(_HEADER_WITHIN))
        start = head.find("***** Running training *****")
        if start >= 0:
            for name, value in facts.parse_facts(head[start : start + 4000])[0]:
                if name in _PLAN:
                    yield Fact(where=file.where(), name=name, value=value)

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        yield Fact(where=file.where(), name="text", value=True)
        reading = _Reading(file, context)
        wanted = None if context.literals is None else Wanted(_STRUCTURE, tuple(sorted(context.literals)), context.line_patterns)
        ahead = _helper(file, wanted) if wanted is not None and context.allow_subprocess and file.source.bytes > SMALL else None
        finder: Finder | PrefilterProcess | None = None
        seen = 0
        try:
            for number, (block, whole) in enumerate(blocks(text_only(file.chunks()))):
                data = block
                while wanted is not None and data:
                    if seen >= SMALL or reading.wanted > MANY:
                        finder, wanted = _begun(ahead, wanted, (number, len(block) - len(data)), State(reading.wanted)), None
                        break
                    stop = data.find(b"\n", _PIECE) + 1 or len(data)
                    yield from reading.lines(data[:stop], whole or stop < len(data))
                    seen, data = seen + stop, data[stop:]
                if data:
                    found = None if finder is None else finder.scan(data)
                    yield from reading.lines(data, whole) if found is None else reading.found(data, found)
        finally:
            if ahead is not None:
                ahead.close()
        yield from reading.close()


def _helper(file: File, wanted: Wanted) -> PrefilterProcess | None:
    """A second process, where it is worth one."""
    from doctor.readers.console import prefilter_process  # 6 ms of every start

    return prefilter_process.PrefilterProcess(file, wanted) if prefilter_process.worthwhile(file) else None


def _begun(ahead: PrefilterProcess | None, wanted: Wanted, place: tuple[int, int], state: State) -> Finder | PrefilterProcess | None:
    """What finds from here (a block's number, an offset in it) on, if there is an engine for it."""
    if ahead is None:
        return Finder.made(wanted, state)
    ahead.begin(*place, state)
    return ahead


class _Reading:
    """The state of one pass over one console."""

    def __init__(self, file: File, context: Context) -> None:
        self.file = file
        self._gate = LineFilter(_STRUCTURE, context.literals)
        self._stepper = StepInference(context.config, context.facts)
        self._prefixes = Prefixes()
        self._tracebacks: dict[str, Tracebacks] = {}
        self._ranks: dict[str, int | None] = {}
        self._busy: set[str] = set()
        self._ends = process_exits.Ends()
        self._json: tuple[str, int, list[str]] | None = None
        self._model: dict[str, object] | None = None
        self._phase: Phase | None = None
        self._attempt = 0
        self._trained = self._failed = self._completed = False
        self._number = 1
        self.wanted = 0
        self._time: float | None = None
        self._keep = self._telling = True
        self._last_bar: LogLine | None = None

    def lines(self, data: bytes, whole: bool) -> Iterator[Event]:
        """Every line of a block; `whole`: it ends with a newline, otherwise its last line goes on in the next block."""
        lines = data.split(b"\n")
        last = lines.pop()
        for raw in lines:
            yield from self.line(raw)
            self._number += 1
        if last or not whole:
            yield from self.line(last)

    def found(self, data: bytes, found: Found) -> Iterator[Event | list[Step]]:
        """The lines of a block in which something was found, and the lines after them as long as what was found goes on."""
        first, ends, barred = self._number, found.ends, b"%|" in data
        steps: list[Step] = []
        place = yield from self.read_open_block(data, 0)
        for find, (end, number, start, stop) in enumerate(zip(ends, found.numbers, found.starts, found.stops, strict=True)):
            if end <= place:
                continue
            if barred:
                self._pass(data, place, start)
            self._number = first + number
            quick = self._plain_record(data, start, stop, ends, find)
            if quick is not None and len(quick) == 1 and (not steps or steps[-1].step < quick[0].step):
                steps += quick
            else:
                if steps:
                    yield steps
                steps = []
                yield from self.line(relevant_part(data, start, stop, ends, find)) if quick is None else quick
            self._number += stop < len(data)
            place = yield from self.read_open_block(data, stop + 1)
        if steps:
            yield steps
        if barred:
            self._pass(data, place, len(data))
        self._number = first + found.lines

    def _plain_record(self, data: bytes, start: int, stop: int, ends: list[int], number: int) -> list[Step] | None:
        """What `line` yields of the usual line: progress bars, cleared to print one flat dict of numbers; None for any other line."""
        if self._last_bar is not None or data.find(b"{'", start, stop) < 0:
            return None
        place = last_segment(data, start, stop, ends, number)
        raw = data[place:stop]
        if place < 0 or not raw.startswith(b"{'") or self._gate(raw) != LineFilter.STRUCTURE or (record := plain(raw)) is None:
            return None
        bar = None
        if self._bars_matter() and (shown := data.rfind(b"%|", start, place)) >= 0:
            bar = plain_bar(data[data.rfind(b"\r", start, shown) + 1 or start : data.find(b"\r", shown, place)])
            if bar is None:
                return None
        found = self._training(record, None)
        self._bar(bar)
        return found

    def read_open_block(self, data: bytes, place: int) -> Generator[Event, None, int]:
        """Reads line after line while something is open (a traceback, a failure block, a printed model); returns where it ended."""
        while place < len(data) and (self._busy or self._ends.in_block or self._json is not None):
            stop = data.find(b"\n", place)
            stop = len(data) if stop < 0 else stop
            yield from self.line(data[place:stop])
            self._number += stop < len(data)
            place = stop + 1
        return place

    def _pass(self, data: bytes, start: int, stop: int) -> None:
        """Over lines that hold nothing but, perhaps, progress bars."""
        if start < stop and self._bars_matter():
            for bar in bars(data, start, stop):
                self._bar(bar_step(bar))

    def line(self, raw: bytes) -> Iterator[Event]:
        """One `\\n` line: its carriage-return segments, of which plain progress bars count by their last."""
        if raw.startswith(b"lfdoctor: "):  # what the doctor said then is no evidence now
            return
        if self._busy:
            yield from self._overdue()
        raw = raw.removesuffix(b"\r")
        if b"\r" not in raw:
            for part in _GLUED.split(raw) if len(raw) > CUT else (raw,):
                yield from self._segment(part)
            return
        bar = b""
        cleared = False
        for part in raw.split(b"\r"):
            if b"%|" in part and part.rstrip().endswith(b"]") and part.count(b"%|") == 1:
                bar = part
                if cleared and (marked := bar_step(part)) is not None:
                    self._stepper.mark(*marked)
                cleared = False
            elif part and not part.isspace():
                cleared = False
                yield from self._segment(part)
            elif bar and len(part) >= _CLEARED:
                cleared = True
        if bar:
            self._bar(bar_step(bar))
            self._labelled(bar, self._gate(bar))

    def _overdue(self, before: int | None = None) -> Iterator[Event]:
        """A rank whose exception stands there (`before` a line), and who has been silent since, has said all."""
        limit = self._number - _SILENCE if before is None else before
        for lane in [lane for lane in self._busy if lane]:
            parser = self._tracebacks[lane]
            if parser.silent_since is not None and parser.silent_since < limit:
                for raised in parser.close():
                    yield self._crash(raised, self._ranks.get(lane))
                self._busy.discard(lane)

    def _segment(self, raw: bytes) -> Iterator[Event]:
        if b"\x1b" in raw:
            raw = clean(decode(raw)).encode()
        known = self._gate(raw)
        self._keep = known & LineFilter.WANTED != 0
        self.wanted += self._keep
        self._telling = known & LineFilter.STRUCTURE != 0
        if not known and not self._busy and not self._ends.in_block and self._json is None:
            if b"%|" in raw:
                self._bar(bar_step(raw))
            return
        if raw.startswith(b"{'") and known == LineFilter.STRUCTURE and not self._busy and not self._ends.in_block and self._json is None:
            text = decode(raw[:CUT])
            record = printed(text)
            if record is not None and record.metrics and "%|" not in text:
                yield from self._shown_bar()
                yield from self._record(record, text)
                return
        pieces, bar = unglue(clean(decode(raw)))
        if bar is not None:
            self._bar(bar)
        self._labelled(raw, known)
        if pieces:
            yield from self._shown_bar()
        for piece in pieces:
            yield from self._piece(piece)
        if not pieces and self._busy and not raw.strip():
            yield from self._piece("")

    def _bars_matter(self) -> bool:
        """Whether a bar without a label could still tell something: the step of a record, or that saving is over."""
        return self._phase in (None, "save") or not self._stepper.settled

    def _bar(self, bar: tuple[int, int] | None) -> None:
        if bar is None:
            return
        training = self._stepper.bar(*bar)
        if self._phase is None or (training and self._phase == "save"):
            self._phase = "train"

    def _labelled(self, raw: bytes, known: int) -> None:
        """A bar with a label tells the phase; of its redraws only the last one is a line that rules may want."""
        if not known or b"%|" not in raw or (found := labelled_bar(clean(decode(raw)))) is None:
            return
        label, shown = found
        if (phase := facts.parse_facts(label)[1]) is not None:
            self._phase = phase
        if known & LineFilter.WANTED:
            self._last_bar = self._log_line(shown, None)

    def _shown_bar(self) -> list[Event]:
        shown, self._last_bar = self._last_bar, None
        return [] if shown is None else [shown]

    def _piece(self, piece: str) -> Iterator[Event]:
        lane, rank, text = self._prefixes.split(piece)
        if HEADER in text:
            before = text[: text.index(HEADER)]
            if before.strip() and not any(sign in before for sign in _GLUED_HEADER) and not HEADER_NAME.match(before):
                yield from self._text(lane, rank, before)
                text = text[len(before) :]
        yield from self._text(lane, rank, text)

    def _text(self, lane: str, rank: int | None, text: str) -> Iterator[Event]:
        """One line without prefix: part of a traceback, of a printed model, a record, or just a line."""
        if self._json is not None and self._json[0] == lane:
            yield from self._in_json(text)
        consumed, raised = self._traceback(lane, rank, text)
        for one in raised:
            yield from self._overdue(before=one.line)
            yield self._crash(one, rank)
        if consumed:
            if "traceback :" in text:
                yield from self._process_ends(text, rank)
            return
        if not text.strip():
            return
        record = printed(text)
        if record is not None and record.metrics:
            yield from self._record(record, text)
        elif len(text) < 2000:
            yield from self._told(lane, rank, text)
        if self._keep:
            yield self._log_line(text, rank)

    def _traceback(self, lane: str, rank: int | None, text: str) -> tuple[bool, list[Raised]]:
        parser = self._tracebacks.get(lane)
        if parser is None:
            if len(self._tracebacks) >= _MAX_LANES:
                lane = ""
            parser = self._tracebacks.setdefault(lane, Tracebacks())
        if self._telling and parser.silent_since is not None and facts.tells(text):
            self._busy.discard(lane)
            return False, parser.close()
        consumed, raised = parser.feed(text, self._number)
        if rank is not None:
            self._ranks[lane] = rank
        if parser.active:
            self._busy.add(lane)
        else:
            self._busy.discard(lane)
        return consumed, raised

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
            phase=phase_of([frame.function for frame in raised.frames]) or self._phase,
            chain=raised.chain,
        )

    def _log_line(self, text: str, rank: int | None) -> LogLine:
        level = _LEVEL.search(text, 0, 80)
        short = None if level else _GLOG.match(text)
        named = level[1] if level else {"W": "WARNING", "E": "ERROR", "I": "INFO", "F": "CRITICAL"}[short[1]] if short else None
        self._clock(text)
        where = self.file.where(self._number)
        return LogLine(where=where, rank=rank, attempt=self._attempt, time=self._time, text=text.rstrip(), level=named, phase=self._phase)

    def _clock(self, text: str) -> float | None:
        """The time that this line tells (as if it were UTC); remembered as the latest one told."""
        if (found := _TIME.search(text, 0, 120)) is not None:
            year, month, day, *clock = (int(part) for part in found.groups())
        elif (found := _AMERICAN.match(text)) is not None:
            month, day, year, *clock = (int(part) for part in found.groups())
        else:
            return None
        if not (1 <= month <= 12 and 1 <= day <= 31):
            return None
        self._time = float(calendar.timegm((year, month, day, *clock, 0, 0, 0)))
        return self._time

    def _record(self, record: MetricRecord, text: str) -> Iterator[Event]:
        summary = "train_runtime" in record.metrics and "loss" not in record.metrics
        if summary:
            self.file.source.records += 1
            yield from self._summary(record)
            return
        # a stamp of an earlier line is no time of this step: without one of its own the record has none
        yield from self._training(record, self._clock(text))

    def _training(self, record: MetricRecord, time: float | None) -> list[Step]:
        """The records of the training whose step is known now."""
        if self._phase in (None, "start", "load", "tokenise", "save", "eval"):
            self._phase = "train"
        self._trained = True
        self.file.source.records += 1
        return self._stepper.feed(record, self.file.where(self._number), time)

    def _summary(self, record: MetricRecord) -> Iterator[Event]:
        metrics = record.metrics
        for name, fact in (
            ("train_runtime", "train.runtime_seconds"),
            ("train_samples_per_second", "train.samples_per_second"),
            ("train_steps_per_second", "train.steps_per_second"),
        ):
            if name in metrics:
                yield self._fact(fact, metrics[name])
        if "train_loss" in metrics:
            self._completed = True
            yield self._fact("run.completed", True)

    def _process_ends(self, text: str, rank: int | None) -> Iterator[Event]:
        for end in self._ends.feed(text, self.file.where(self._number), rank, self._attempt):
            yield msgspec.structs.replace(end, phase=self._phase)

    def _told(self, lane: str, rank: int | None, text: str) -> Iterator[Event]:
        yield from self._process_ends(text, rank)
        if "Config {" in text and _CONFIG.search(text):
            self._json = (lane, 0, ["{"])
        if not self._telling:
            return
        found, phase = facts.parse_facts(text)
        if any(name == "run.started_training" for name, _ in found) or "Process rank: 0," in text or "distributed tasks at" in text:
            yield from self._again("Running training" in text)
        if phase is not None:
            self._phase = phase
        for name, value in found:
            yield self._fact(name, value)
            self._stepper.learn(name, value)
            self._completed = self._completed or name == "run.completed"

    def _again(self, training: bool) -> Iterator[Event]:
        """A start marker: of another attempt, if this one has already trained or failed."""
        if not (self._trained or self._failed):
            return
        yield from self._stepper.flush()
        self._stepper.restart()
        self._attempt += 1
        self._trained = self._failed = False
        if self._completed:
            self._completed = False
            yield self._fact("run.completed", False)

    def _fact(self, name: str, value: object) -> Fact:
        return Fact(where=self.file.where(self._number), attempt=self._attempt, time=self._time, name=name, value=value)

    def _in_json(self, text: str) -> Iterator[Event]:
        """Lines of a printed model configuration, until its closing brace; something else in between ends it."""
        lane, count, parts = self._json or ("", 0, [])
        parts.append(text)
        self._json = (lane, count + 1, parts)
        if text.rstrip() == "}":
            self._json = None
            try:
                model = json.loads("\n".join(parts))
            except (ValueError, RecursionError):
                return
            if isinstance(model, dict) and model.keys() & {"hidden_size", "n_embd", "text_config"} and model != self._model:
                self._model = model
                yield self._fact("model.config", model)
        elif count > 400:
            self._json = None

    def close(self) -> Iterator[Event]:
        """The end of the text."""
        yield from self._shown_bar()
        left = [(raised, lane) for lane, parser in self._tracebacks.items() for raised in parser.close()]
        for raised, lane in sorted(left, key=lambda one: one[0].line):
            yield self._crash(raised, self._ranks.get(lane))
        yield from (msgspec.structs.replace(end, phase=self._phase) for end in self._ends.close())
        yield from self._stepper.flush()
