"""Bytes of a console into lines of text for the `Interpreter`: progress bars skipped, carriage returns split, unwanted lines left out."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any

from doctor.core.events import Event, LogLine, Step
from doctor.readers.base import Context
from doctor.readers.console import facts, process_exits
from doctor.readers.console.interpreter import Interpreter
from doctor.readers.console.ipython import ARROW
from doctor.readers.console.lines import MAX_TEXT, LineFilter, bar_step, clean, labelled_bar, plain_bar, unglue
from doctor.readers.console.records import plain, printed
from doctor.readers.console.scan import Found, bars, last_segment, relevant_part
from doctor.readers.console.tracebacks import CUT, HEADER, IGNORED, LOGGING_ERROR
from doctor.readers.file import File, decode

STRUCTURE = (
    *facts.WORDS, *process_exits.WORDS, HEADER, ARROW, CUT, LOGGING_ERROR, IGNORED, "Arguments:", 'File "',
    "Error", "Exception", "Interrupt", "Invalid", "Exit", "StopIteration",
    "RemoteTraceback",
    "During handling of", "The above exception", "loss", "Loss", "'eval_", "'reward'", "train_runtime", "Config {", "current_steps",
)  # fmt: skip
"""Literals of the lines that are read in any case: facts, tracebacks, process ends, metric records, printed models."""

_OWN_OUTPUT = b"lfdoctor: "
"""What the doctor itself printed during the run is no evidence."""
_AFTER_BAR = re.compile(rb"(?<=it/s\]|s/it\])")
_MODEL_ENDS = b"\n}\n"
_MAX_MODEL = 1 << 16
"""Bytes of a printed model at most that are compared with the last one."""
_MIN_CLEARING = 10
"""Blanks with which tqdm overwrites a bar before something is printed: at least the length of the shortest bar."""


def _filter_of(context: Context) -> LineFilter:
    """One filter for all consoles of a run: it takes longer to build than most consoles take to read."""
    known = context.shared.get("line filter")
    return known if isinstance(known, LineFilter) else context.shared.setdefault("line filter", LineFilter(STRUCTURE, context.literals))


class LineReader:
    """Reads lines one by one (`lines`), or only those in which a finder found something (`found_lines`)."""

    def __init__(self, file: File, context: Context) -> None:
        self.wanted_lines = 0
        self._interpreter = Interpreter(file, context)
        self._filter = _filter_of(context)
        self._last_bar: LogLine | None = None
        self._of_bars: dict[str, Any] = {}
        self._silent_model: bytes | None = None

    def lines(self, data: bytes, whole: bool) -> Iterator[Event]:
        """Every line of a block. If not `whole`, its last line continues in the next block."""
        state, blank = self._interpreter, not self._filter(b"")
        if blank and not state.in_block and not data.strip(b"\n"):
            state.number += len(data)
            return
        place = 0
        while (stop := data.find(b"\n", place)) >= 0:
            if stop > place or not blank or state.in_block:
                yield from self._line(data[place:stop])
            state.number += 1
            place = (yield from self._read_model(data, stop + 1)) if state.in_model else stop + 1
        if place < len(data) or not whole:
            yield from self._line(data[place:])

    def found_lines(self, data: bytes, found: Found) -> Iterator[Event | list[Step]]:
        """The lines of a block that have finds, and the lines after them while a block (traceback, printed model) is open."""
        state = self._interpreter
        first, ends, has_bars = state.number, found.ends, b"%|" in data
        steps: list[Step] = []
        place = yield from self._read_open_block(data, 0)
        for find, (end, number, start, stop) in enumerate(zip(ends, found.numbers, found.starts, found.stops, strict=True)):
            if end <= place:
                continue
            if has_bars:
                self._skip_bars(data, place, start)
            state.number = first + number
            quick = self._plain_record(data, start, stop, ends, find)
            if quick is not None and len(quick) == 1 and (not steps or steps[-1].step < quick[0].step):
                steps += quick
            else:
                if steps:
                    yield steps
                steps = []
                yield from self._line(relevant_part(data, start, stop, ends, find)) if quick is None else quick
            state.number += stop < len(data)
            place = yield from self._read_open_block(data, stop + 1)
        if steps:
            yield steps
        if has_bars:
            self._skip_bars(data, place, len(data))
        state.number = first + found.lines

    def close(self) -> Iterator[Event]:
        """The end of the text."""
        yield from self._shown_bar()
        yield from self._interpreter.close()

    def _plain_record(self, data: bytes, start: int, stop: int, ends: list[int], find: int) -> list[Step] | None:
        """The steps of the usual line of a record: bars, blanks that clear them, one flat dict of numbers. None for any other line."""
        if self._last_bar is not None or data.find(b"{'", start, stop) < 0:
            return None
        place = last_segment(data, start, stop, ends, find)
        raw = data[place:stop]
        if place < 0 or not raw.startswith(b"{'") or self._filter(raw) != LineFilter.STRUCTURE or (record := plain(raw)) is None:
            return None
        bar = None
        if self._needs_step_from_bars() and (shown := data.rfind(b"%|", start, place)) >= 0:
            bar = plain_bar(data[data.rfind(b"\r", start, shown) + 1 or start : data.find(b"\r", shown, place)])
            if bar is None:
                return None
        steps = self._interpreter.training_steps(record, None)
        self._bar(bar)
        return steps

    def _read_open_block(self, data: bytes, place: int) -> Generator[Event, None, int]:
        """Read line after line while a block is open; return where it ended."""
        place = yield from self._read_model(data, place)
        while place < len(data) and self._interpreter.in_block:
            stop = data.find(b"\n", place)
            stop = len(data) if stop < 0 else stop
            yield from self._line(data[place:stop])
            self._interpreter.number += stop < len(data)
            place = stop + 1
        return place

    def _read_model(self, data: bytes, place: int) -> Generator[Event, None, int]:
        """Read a printed model up to its closing brace. What said nothing the last time is skipped: each checkpoint prints it again."""
        if not self._interpreter.in_model:
            return place
        stop = data.find(_MODEL_ENDS, place, place + _MAX_MODEL) + len(_MODEL_ENDS)
        if stop < len(_MODEL_ENDS):
            self._silent_model = None
            return place
        block = data[place:stop]
        if block == self._silent_model:
            self._interpreter.skip_model()
            self._interpreter.number += block.count(b"\n")
            return stop
        said = False
        while place < stop and self._interpreter.in_model:
            end = data.find(b"\n", place)
            for event in self._line(data[place:end]):
                said = True
                yield event
            self._interpreter.number += 1
            place = end + 1
        self._silent_model = block if place == stop and not said else None
        return place

    def _skip_bars(self, data: bytes, start: int, stop: int) -> None:
        """Skip lines without finds; of their progress bars only the decisive ones are read."""
        if start < stop and self._needs_step_from_bars():
            for bar in bars(data, start, stop):
                self._bar(bar_step(bar))

    def _line(self, raw: bytes) -> Iterator[Event]:
        """One `\\n` line: its carriage-return segments; of plain progress bars only the last."""
        if raw.startswith(_OWN_OUTPUT):
            return
        if self._interpreter.in_traceback:
            yield from self._interpreter.close_silent()
        raw = raw.removesuffix(b"\r")
        if b"\r" not in raw:
            for part in _AFTER_BAR.split(raw) if len(raw) > MAX_TEXT else (raw,):
                yield from self._segment(part)
            return
        bar = b""
        cleared = False
        for part in raw.split(b"\r"):
            if b"%|" in part and part.rstrip().endswith(b"]") and part.count(b"%|") == 1:
                bar = part
                if cleared and (marked := bar_step(part)) is not None:
                    self._interpreter.steps.mark(*marked)
                cleared = False
            elif part and not part.isspace():
                cleared = False
                yield from self._segment(part)
            elif bar and len(part) >= _MIN_CLEARING:
                cleared = True
        if bar:
            self._bar(bar_step(bar))
            self._labelled(bar, self._filter(bar))

    def _segment(self, raw: bytes) -> Iterator[Event]:
        if b"\x1b" in raw:
            raw = clean(decode(raw)).encode()
        known = self._filter(raw)
        structure, wanted = known & LineFilter.STRUCTURE != 0, known & LineFilter.WANTED != 0
        self.wanted_lines += wanted
        state = self._interpreter
        if not known and not state.in_block:
            if b"%|" in raw:
                self._bar(bar_step(raw))
            return
        if raw.startswith(b"{'") and known == LineFilter.STRUCTURE and not state.in_block:
            text = decode(raw[:MAX_TEXT])
            record = printed(text)
            if record is not None and record.metrics and "%|" not in text:
                yield from self._shown_bar()
                yield from state.record(record, text)
                return
        pieces, bar = unglue(clean(decode(raw)))
        self._bar(bar)
        self._labelled(raw, known)
        if pieces:
            yield from self._shown_bar()
        for piece in pieces:
            yield from state.text(piece, structure=structure, wanted=wanted)
        if not pieces and state.in_traceback and not raw.strip():
            yield from state.text("", structure=structure, wanted=wanted)

    def _needs_step_from_bars(self) -> bool:
        """Whether a bar without a label still says something: the step of a record, or that saving is over."""
        return self._interpreter.phase in (None, "save") or not self._interpreter.steps.settled

    def _bar(self, bar: tuple[int, int] | None) -> None:
        if bar is None:
            return
        state = self._interpreter
        training = state.steps.bar(*bar)
        if state.phase is None or (training and state.phase == "save"):
            state.phase = "train"

    def _labelled(self, raw: bytes, known: int) -> None:
        """A bar with a label may begin a phase; if rules want the line, the last redraw of the bar is kept for them."""
        if not known or b"%|" not in raw or (found := labelled_bar(clean(decode(raw)))) is None:
            return
        label, shown = found
        stated, phase = facts.parse_facts(label)
        self._of_bars.update(stated)
        if phase is not None:
            self._interpreter.phase = phase
        if known & LineFilter.WANTED:
            self._last_bar = self._interpreter.log_line(shown)

    def _shown_bar(self) -> list[Event]:
        """What the bars before this line state, and the last of them if a rule wants it."""
        shown, self._last_bar = self._last_bar, None
        out: list[Event] = [self._interpreter.fact(name, value) for name, value in self._of_bars.items()]
        self._of_bars.clear()
        return out if shown is None else [*out, shown]
