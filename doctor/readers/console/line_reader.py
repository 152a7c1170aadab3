"""Bytes of a console into lines of text for the `Interpreter`: carriage returns split, progress bars skipped, unwanted lines left out."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from itertools import compress
from typing import Any, NamedTuple

from doctor.core.events import Event, LogLine
from doctor.readers.base import Context
from doctor.readers.console import facts, process_exits
from doctor.readers.console.interpreter import Interpreter
from doctor.readers.console.ipython import ARROW
from doctor.readers.console.line_filter import BAR, READ, STATES, STRUCTURE, WANTED, Floods, LineFilter, shapes_of
from doctor.readers.console.lines import MAX_TEXT, bar_step, clean, plain_bar, unglue
from doctor.readers.console.records import plain
from doctor.readers.console.tracebacks import CUT, HEADER, IGNORED, LOGGING_ERROR
from doctor.readers.file import File, decode

_STATES = ("Error", "Exception", "Interrupt", "Invalid", "Exit", "StopIteration", "total capacity of", "total capacity;")
"""Literals of the names of exceptions, and of facts that they state: of such lines few say what many do."""
_STRUCTURE = (
    *(word for word in facts.WORDS if word not in _STATES), *process_exits.WORDS,
    HEADER, ARROW, CUT, LOGGING_ERROR, IGNORED, "Arguments:", 'File "', "RemoteTraceback",
    "During handling of", "The above exception", "loss", "Loss", "'eval_", "'reward'", "train_runtime", "Config {", "current_steps",
)  # fmt: skip
"""Literals of the other lines that are read in any case: facts, tracebacks, process ends, metric records, printed models."""

_OWN_OUTPUT = b"lfdoctor: "
"""What the doctor itself printed during the run is no evidence."""
_AFTER_BAR = re.compile(rb"(?<=it/s\]|s/it\])")
_REDRAWS = re.compile(rb"(?:\r*[^%\r]*%\|[^%\r]*\][ ]*\r)+")
"""Redraws of bars at the beginning of a line, each one bar and nothing behind it."""
_MAX_MODEL = 400
"""Lines of a printed model at most that are compared with the last one."""
_MIN_CLEARING = 10
"""Blanks with which tqdm overwrites a bar before something is printed: at least the length of the shortest bar."""
_CLEARED = b" " * _MIN_CLEARING + b"\r"


def _filter_of(context: Context) -> LineFilter:
    """One filter for all consoles of a run."""
    known = context.shared.get("line filter")
    if isinstance(known, LineFilter):
        return known
    words: dict[int, Any] = {STRUCTURE: _STRUCTURE, STATES: _STATES}
    if context.literals is not None:
        words[WANTED] = context.literals
    made = context.shared["line filter"] = LineFilter(words)
    return made


class LineReader:
    """Reads a console block by block: of each block the wanted lines, and every line while a traceback or a printed model is open."""

    def __init__(self, file: File, context: Context) -> None:
        self._file = file
        self._interpreter = Interpreter(file, context)
        self._filter = _filter_of(context)
        self._floods = Floods(counting=context.literals is not None)
        self._last_bar: LogLine | None = None
        self._of_bars: dict[str, Any] = {}
        self._silent_model: list[bytes] = []

    def lines(self, data: bytes, whole: bool) -> Iterator[Event]:
        """The lines of a block. If not `whole`, its last line continues in the next block."""
        lines, shapes = data.split(b"\n"), shapes_of(data)
        last, _ = lines.pop(), shapes.pop()
        block = _Block(lines, shapes, self._filter.classes(lines, shapes), self._floods.in_block(shapes), self._interpreter.number)
        place = yield from self._read_open(block, 0)
        for number in compress(range(len(lines)), block.classes):
            if number < place or block.stands_for.get(number) == 0:
                continue
            if block.classes[number] & READ:
                yield from self._numbered(block, number)
                place = yield from self._read_open(block, number + 1)
            elif self._needs_step_from_bars():
                self._interpreter.number = block.first + number
                yield from self._bars_of(lines[number])
        self._interpreter.number = block.first + len(lines)
        if last or not whole:
            yield from self._line(last)

    def close(self) -> Iterator[Event]:
        """The end of the text."""
        yield from self._shown_bar()
        yield from self._interpreter.close()
        if self._floods.left_out:
            shown = f"{self._floods.left_out:,}"
            self._file.source.problem(f"{shown} lines differ from others in their numbers only: counted, not read")

    def _numbered(self, block: _Block, number: int) -> Iterator[Event]:
        """Read one line of a block."""
        known, state = block.classes[number], self._interpreter
        state.number = block.first + number
        if known & (WANTED | STATES):
            self._floods.read(block.shapes[number], known)
            if (times := block.stands_for.get(number, 1)) > 1:
                state.repeats[state.number] = times
        yield from self._line(block.lines[number])

    def _read_open(self, block: _Block, place: int) -> Generator[Event, None, int]:
        """Read line after line while something is open; return where it ended."""
        state = self._interpreter
        while place < len(block.lines) and state.in_block:
            if state.in_model:
                place = yield from self._read_model(block, place)
            elif block.stands_for.get(place) == 0 and not state.lacks_exception:
                place += 1
            else:
                yield from self._numbered(block, place)
                place += 1
        return place

    def _read_model(self, block: _Block, place: int) -> Generator[Event, None, int]:
        """Read a printed model up to its closing brace. What said nothing the last time is skipped: each checkpoint prints it again."""
        state, lines = self._interpreter, block.lines
        try:
            stop = lines.index(b"}", place, place + _MAX_MODEL) + 1
        except ValueError:
            stop = 0
        if stop and lines[place:stop] == self._silent_model:
            state.skip_model()
            return stop
        begun, said = place, False
        while place < len(lines) and state.in_model:
            state.number = block.first + place
            if block.classes[place] or self._last_bar is not None or self._of_bars or not lines[place].startswith((b"  ", b"}")):
                for event in self._line(lines[place]):
                    said = True
                    yield event
            elif (fact := state.model_line(decode(lines[place]))) is not None:
                said = True
                yield fact
            place += 1
        self._silent_model = lines[begun:stop] if place == stop and not said else []
        return place

    def _bars_of(self, raw: bytes) -> Iterator[Event]:
        """A line that only its bars make interesting."""
        shown = raw.rfind(b"%|")
        stop = raw.find(b"\r", shown)
        bar = plain_bar(raw[raw.rfind(b"\r", 0, shown) + 1 : len(raw) if stop < 0 else stop])
        if bar is None or _CLEARED in raw:
            yield from self._line(raw)
        else:
            self._bar(bar)

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
        redraws = _REDRAWS.match(raw)
        place = redraws.end() if redraws else 0
        bar = raw[raw.rfind(b"\r", 0, place - 1) + 1 : place - 1] if redraws else b""
        cleared = False
        for part in raw[place:].split(b"\r"):
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
            known = self._filter(bar)
            if known & READ:
                found = unglue(clean(decode(bar)))
                self._bar(found.step)
                self._labelled(found.labelled, known)
            else:
                self._bar(bar_step(bar))

    def _segment(self, raw: bytes) -> Iterator[Event]:
        if b"\x1b" in raw:
            raw = clean(decode(raw)).encode()
        known, state = self._filter(raw), self._interpreter
        if not known & READ and not state.in_block:
            if known & BAR:
                self._bar(bar_step(raw))
            return
        if known == STRUCTURE and raw.startswith(b"{'") and not state.in_block and (record := plain(raw[:MAX_TEXT])) is not None:
            yield from self._shown_bar()
            yield from state.record(record, "")
            return
        structure, wanted = known & (STRUCTURE | STATES) != 0, known & WANTED != 0
        found = unglue(clean(decode(raw)))
        self._bar(found.step)
        if known & READ:
            self._labelled(found.labelled, known)
        if found.pieces:
            yield from self._shown_bar()
        for piece in found.pieces:
            yield from state.text(piece, structure=structure, wanted=wanted)
        if not found.pieces and state.in_traceback and not raw.strip():
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

    def _labelled(self, bar: tuple[str, str] | None, known: int) -> None:
        """A bar with a label may begin a phase; if rules want the line, the last redraw of the bar is kept for them."""
        if bar is None:
            return
        label, shown = bar
        stated, phase = facts.parse_facts(label)
        self._of_bars.update(stated)
        if phase is not None:
            self._interpreter.phase = phase
        if known & WANTED:
            self._last_bar = self._interpreter.log_line(shown)

    def _shown_bar(self) -> list[Event]:
        """What the bars before this line state, and the last of them if a rule wants it."""
        if self._last_bar is None and not self._of_bars:
            return []
        shown, self._last_bar = self._last_bar, None
        out: list[Event] = [self._interpreter.fact(name, value) for name, value in self._of_bars.items()]
        self._of_bars.clear()
        return out if shown is None else [*out, shown]


class _Block(NamedTuple):
    """Lines with their shapes and classes. `stands_for`: see Floods; `first` is the number of the first line in the file."""

    lines: list[bytes]
    shapes: list[bytes]
    classes: list[int]
    stands_for: dict[int, int]
    first: int
