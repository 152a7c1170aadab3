"""trainer_log.jsonl: one JSON object per logging step, written by LLaMA-Factory's LogCallback (all key sets since 0.7)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import Event, Fact, Step, Where
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.file import File, decode
from doctor.readers.values import duration_seconds, number
from doctor.support.decoding import json_decoder

_NAMES = {
    "lr": "learning_rate",
    "accuracy": "rewards/accuracies",
    "vram_allocated": "vram_allocated_gib",
    "vram_reserved": "vram_reserved_gib",
    **dict.fromkeys(("current_steps", "total_steps", "percentage", "elapsed_time", "remaining_time", "step", "global_step"), ""),
}
"""Key of the file -> name in trainer_state.json; empty: not a metric."""
_PROGRESS_METRICS = frozenset({"epoch", "throughput", "total_tokens", "vram_allocated_gib", "vram_reserved_gib"})
"""A record with no other metric says only how far the run is."""
_STEP_KEYS = ("current_steps", "step", "global_step")
"""`step` is the key of LLaMA-Factory's v1 trainer."""
_BLOCK = 1 << 17
"""Bytes decoded at once; a block and its steps fit the processor's cache."""
_MAX_LINE = 1 << 20
"""Bytes; a longer line is no record and is cut."""
_MAX_STEP = 1 << 52
"""Larger steps are no steps, and not exact as floats."""


class TrainerLog(ReaderBase):
    """A line that is no JSON costs that line."""

    kind = "trainer_log"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        named = path.name.startswith("trainer_log") and ".json" in path.name
        return named or (path.name.endswith(".jsonl") and b'"current_steps"' in head)

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        log = _Log(file)
        for block in _blocks(file):
            yield from log.events(_records(block))
        if log.damaged > 1:
            file.source.problem(f"{log.damaged} lines are no JSON records")
        if log.complete and log.planned is not None:
            yield Fact(where=file.where(), name="run.completed", value=True)


def _blocks(file: File) -> Iterator[bytes]:
    """Whole lines, some thousand at a time."""
    rest = b""
    for chunk in file.chunks(_BLOCK):
        data = rest + chunk
        stop = data.rfind(b"\n") + 1
        if stop:
            yield data[:stop]
        rest = data[stop : stop + _MAX_LINE]
    if rest:
        yield rest


_decoder = json_decoder(Any)
_BLANK = object()
"""Stands for a line without content."""


def _records(block: bytes) -> Iterable[Any]:
    """The decoded lines of a block; `_BLANK` for empty lines, None for those that are no JSON."""
    try:
        records = _decoder.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        records = []
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    return records if len(records) == lines else map(_record, block.removesuffix(b"\n").split(b"\n"))


def _record(raw: bytes) -> Any:
    """One decoded line. NaN and Infinity are accepted; of two records on a line (a torn write), the last one that is whole."""
    raw = raw.strip(b" \t\r\0")
    if not raw:
        return _BLANK
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = decode(raw)
    start = text.rfind('{"current_steps"')
    for part in (text, *((text[start:], text[:start]) if start > 0 else ())):
        try:
            return json.loads(part)
        except (ValueError, RecursionError):
            continue
    return None


class _Log:
    """Turns records into steps. `planned` is the total number of steps, `complete` whether the last record says that it was reached."""

    def __init__(self, file: File) -> None:
        self._file, self._name = file, file.name
        self._line = 0
        self._last = -1
        self.damaged = 0
        self.planned: int | None = None
        self.complete = False

    def events(self, records: Iterable[Any]) -> Iterator[Event | list[Step]]:
        """Steps in lists (ascending, with times that do not go back), and the fact steps.planned where it changes."""
        steps: list[Step] = []
        for record in records:
            self._line += 1
            if type(record) is not dict:
                self._note_damage(record)
                continue
            if (step := self._step(record)) is None:
                continue
            total = record.get("total_steps")
            total = total if type(total) is int and total > 0 else None
            if not step.metrics:
                self.complete = total is not None and step.step >= max(self._last, 0)
                continue
            self.complete = False
            if steps and not _follows(step, steps[-1]):
                yield steps
                steps = []
            if total is not None and total != self.planned and "loss" in step.metrics:
                if steps:
                    yield steps
                    steps = []
                self.planned = total
                yield Fact(where=step.where, name="steps.planned", value=total)
            self._last = step.step
            steps.append(step)
        if steps:
            yield steps

    def _note_damage(self, record: Any) -> None:
        if record is not _BLANK:
            self.damaged += 1
            if self.damaged == 1:
                self._file.source.problem(f"line {self._line} is no JSON record: skipped")

    def _step(self, record: dict[str, Any]) -> Step | None:
        """The step of a record; None if it names none."""
        step = record.get("current_steps")
        if step is None:
            step = next((record[key] for key in _STEP_KEYS if key in record), None)
        if type(step) is not int or not 0 <= step < _MAX_STEP:
            return None
        self._file.source.records += 1
        seconds = duration_seconds(record.get("elapsed_time"))
        return Step(where=Where(self._name, self._line, step), step=step, metrics=_metrics(record), seconds=seconds)


def _follows(step: Step, before: Step) -> bool:
    return step.step > before.step and (step.seconds is None or before.seconds is None or step.seconds >= before.seconds)


def _metrics(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record under trainer_state.json's names; none if it only says how far the run is."""
    metrics: dict[str, float] = {}
    for key, value in record.items():
        name = _NAMES.get(key, key)
        if name and (figure := value if type(value) is float else number(value)) is not None:
            metrics[name] = figure
    return {} if _PROGRESS_METRICS.issuperset(metrics) else metrics
