"""Bytes of a console into lines of text for the `Interpreter`: carriage returns split, progress bars skipped, unwanted lines left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

from doctor.core.events import Event, LogLine
from doctor.readers.base import Context
from doctor.readers.console import facts, process_exits
from doctor.readers.console.interpreter import Interpreter
from doctor.readers.console.ipython import ARROW
from doctor.readers.console.line_filter import FACT, FRAME, STATES, STRUCTURE, WANTED, Floods, LineFilter
from doctor.readers.console.lines import MAX_TEXT, bar_step, clean, plain_bar, unglue
from doctor.readers.console.records import plain
from doctor.readers.console.tracebacks import CHAIN, CUT, HEADER, IGNORED, LOGGING_ERROR
from doctor.readers.file import File, decode

_STATES = ("Error", "Exception", "Interrupt", "Invalid", "Exit", "StopIteration", "total capacity of", "total capacity;")
"""Literals of the names of exceptions, and of facts that they state: of such lines few say what many do."""
_STRUCTURE = (
    *process_exits.WORDS,
    HEADER, ARROW, LOGGING_ERROR, IGNORED, "Arguments:", "RemoteTraceback",
    "During handling of", "The above exception", "loss", "Loss", "'eval_", "'reward'", "train_runtime", "Config {", "current_steps",
)  # fmt: skip
"""Literals of the other lines that are read in any case: tracebacks, process ends, metric records, printed models."""
_FRAMES = ('File "', CUT)
"""Literals of the frames of tracebacks, with which an excerpt may begin."""
_MAYBE_FRAME = re.compile(rb'", line \d{1,9}(?:, in .*)?\s*$')
"""The end of a frame of a traceback; stack dumps have others."""

_OWN_OUTPUT = b"lfdoctor: "
"""What the doctor itself printed during the run is no evidence."""
_HEADER = HEADER.encode()
_CHAIN = tuple(map(str.encode, CHAIN))
_AFTER_BAR = re.compile(rb"(?<=it/s\]|s/it\])")
_MIN_CLEARING = 10
"""Blanks with which tqdm overwrites a bar before something is printed: at least the length of the shortest bar."""
_CLEARED = b" " * _MIN_CLEARING + b"\r"


def _filter_of(context: Context) -> LineFilter:
    """One filter for all consoles of a run."""
    known = context.shared.get("line filter")
    if isinstance(known, LineFilter):
        return known
    words: dict[int, Any] = {STRUCTURE: _STRUCTURE, STATES: _STATES, FRAME: _FRAMES}
    words[FACT] = [word for word in facts.WORDS if word not in _STATES]
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

    def lines(self, data: bytes, whole: bool) -> Iterator[Event]:
        """The lines of a block. If not `whole`, its last line continues in the next block."""
        lines = data.split(b"\n")
        candidates, shapes = self._filter.candidates(data, lines)
        last = lines.pop()
        candidates.pop(len(lines), None)
        block = _Block(lines, candidates, self._floods.in_block(lines, candidates, shapes), self._interpreter.number)
        wanted = candidates.keys() - block.stood_for.keys()
        if b"%|" in data:
            wanted |= {number for number, line in enumerate(lines) if b"%|" in line and number not in candidates}
        place = yield from self._read_open(block, 0)
        for number in sorted(wanted):
            if number < place or (candidates.get(number) == FRAME and _MAYBE_FRAME.search(lines[number]) is None):
                continue
            if number in candidates:
                place = yield from self._numbered(block, number)
                place = yield from self._read_open(block, place)
            else:
                self._interpreter.number = block.first + number
                yield from self._bars_of(lines[number])
        self._floods.left_out += block.left_out.total()
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

    def _numbered(self, block: _Block, number: int) -> Generator[Event, None, int]:
        """Read one line of a block, or leave out the traceback that it begins; return where the next one is."""
        known, state, line = block.candidates.get(number, 0), self._interpreter, block.lines[number]
        state.number = block.first + number
        if known & STRUCTURE and _HEADER in line and (behind := self._behind_known_traceback(block, number)) is not None:
            yield from state.close_messages()
            return behind
        if known & (WANTED | STATES):
            self._floods.read(line, known)
            if number in block.stood_for:
                block.left_out[block.stood_for[number]] -= 1
            elif number in block.left_out:
                state.repeats[state.number] = 1 + block.left_out[number]
        yield from self._line(line, known)
        return number + 1

    def _behind_known_traceback(self, block: _Block, number: int) -> int | None:
        """The line behind a traceback like many before, which another line of the block stands for; None if it is to be read."""
        lines = block.lines
        before = lines[number].partition(_HEADER)[0]
        if b"\r" in before or self._interpreter.lacks_exception:
            return None
        inside, stop = before + b"  ", number + 1
        while stop < len(lines) and lines[stop].startswith(inside):
            stop += 1
        known = self._floods.knows_traceback(lines[max(number, stop - 2) : stop + 1])
        following = next((line for line in lines[stop + 1 : stop + 4] if line.strip()), _CHAIN[0])
        if not known or following.removeprefix(before).startswith(_CHAIN) or stop not in block.stood_for:
            return None
        return stop + 1

    def _read_open(self, block: _Block, place: int) -> Generator[Event, None, int]:
        """Read line after line while something is open; return where it ended."""
        state = self._interpreter
        while place < len(block.lines) and state.in_block:
            if state.in_model:
                place = yield from self._read_model(block, place)
            elif place in block.stood_for and not state.lacks_exception:
                while place in block.stood_for:
                    place += 1
            else:
                place = yield from self._numbered(block, place)
        return place

    def _read_model(self, block: _Block, place: int) -> Generator[Event, None, int]:
        """Read the next lines of a printed model: at once those that can only be part of it."""
        stop, lines = place, block.lines
        if self._last_bar is None and not self._of_bars:
            while stop < len(lines) and stop not in block.candidates and lines[stop].startswith(b"  ") and b"%|" not in lines[stop]:
                stop += 1
            stop += lines[stop : stop + 1] == [b"}"] and stop not in block.candidates
        if stop == place:
            return (yield from self._numbered(block, place))
        self._interpreter.number = block.first + stop - 1
        yield from self._interpreter.model_lines(lines[place:stop])
        return stop

    def _bars_of(self, raw: bytes) -> Iterator[Event]:
        """A line that only its bars make interesting: they tell the step of a record, or that saving is over."""
        shown = raw.rfind(b"%|")
        stop = raw.find(b"\r", shown)
        bar = plain_bar(raw[raw.rfind(b"\r", 0, shown) + 1 : len(raw) if stop < 0 else stop])
        if bar is None or _CLEARED in raw:
            yield from self._line(raw)
        else:
            self._bar(bar)

    def _line(self, raw: bytes, known: int | None = None) -> Iterator[Event]:
        """One `\\n` line, of this class if it is known: its carriage-return segments; of plain progress bars only the last."""
        if raw.startswith(_OWN_OUTPUT):
            return
        if self._interpreter.in_traceback:
            yield from self._interpreter.close_silent()
        raw = raw.removesuffix(b"\r")
        if b"\r" not in raw:
            if len(raw) <= MAX_TEXT:
                yield from self._segment(raw, known)
            else:
                for part in _AFTER_BAR.split(raw):
                    yield from self._segment(part)
            return
        bar, cleared = b"", False
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
            known = self._filter(bar)
            if known:
                found = unglue(clean(decode(bar)))
                self._bar(found.step)
                self._labelled(found.labelled, known)
            else:
                self._bar(bar_step(bar))

    def _segment(self, raw: bytes, known: int | None = None) -> Iterator[Event]:
        if b"\x1b" in raw:
            raw, known = clean(decode(raw)).encode(), None
        known, state = self._filter(raw) if known is None else known, self._interpreter
        if not known and not state.in_block:
            if b"%|" in raw:
                self._bar(bar_step(raw))
            return
        if (
            known in (STRUCTURE, STRUCTURE | FACT)
            and raw.startswith(b"{'")
            and not state.in_block
            and (record := plain(raw[:MAX_TEXT])) is not None
        ):
            yield from self._shown_bar()
            yield from state.record(record, "")
            return
        found = unglue(clean(decode(raw)))
        self._bar(found.step)
        if known:
            self._labelled(found.labelled, known)
        if found.pieces:
            yield from self._shown_bar()
        for piece in found.pieces:
            yield from state.text(piece, known)
        if not found.pieces and state.in_traceback and not raw.strip():
            yield from state.text("", known)

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


class _Block:
    """Lines, and the class of those that somebody may want. `first` is the number of the first line, `stood_for` as `Floods.in_block` says.

    `left_out`: the number of a line -> how many lines are left out for which it stands.
    """

    def __init__(self, lines: list[bytes], candidates: dict[int, int], stood_for: dict[int, int], first: int) -> None:
        self.lines, self.candidates, self.stood_for, self.first = lines, candidates, stood_for, first
        self.left_out = Counter(stood_for.values())
