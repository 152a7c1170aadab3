"""trainer_log.jsonl: one JSON object a logging step, written by LLaMA-Factory's LogCallback (all key sets since 0.7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from doctor.events import Event, Fact, Where
from doctor.readers.base import Context, File, Lane, ReaderBase, Record, decode, duration_seconds, number

_MEANT = {
    "lr": "learning_rate",
    "accuracy": "rewards/accuracies",
    "vram_allocated": "vram_allocated_gib",
    "vram_reserved": "vram_reserved_gib",
    **dict.fromkeys(("current_steps", "total_steps", "percentage", "elapsed_time", "remaining_time", "step", "global_step"), ""),
}
"""Names of the file -> names of trainer_state.json; empty: no metric."""
_PROGRESS = frozenset({"epoch", "throughput", "total_tokens", "vram_allocated_gib", "vram_reserved_gib"})
_STEP_KEYS = ("current_steps", "step", "global_step")
_LOSSLESS = 1 << 52


class TrainerLog(ReaderBase):
    """Also LLaMA-Factory's v1 trainer (`step` instead of `current_steps`); a line that is no JSON costs that line."""

    kind = "trainer_log"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        named = path.name.startswith("trainer_log") and ".json" in path.name
        return named or (path.name.endswith(".jsonl") and b'"current_steps"' in head)

    def read(self, file: File, context: Context) -> Iterator[Event | Record]:
        decode_json = msgspec.json.Decoder().decode
        planned = last = None
        records = _Records(file)
        broken, complete = 0, False
        for line, raw in enumerate(_lines(file), 1):
            try:
                values = decode_json(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raw = raw.strip(b" \t\r\0")
                if not raw:
                    continue
                values = _lenient(raw)
            record = records.record(values, line) if type(values) is dict else None
            if record is None:
                broken += type(values) is not dict
                if broken == 1:
                    file.source.problem(f"line {line} is no JSON record: skipped")
                continue
            file.source.records += 1
            if "loss" in record.metrics and record.total and record.total != planned:
                planned = record.total
                yield Fact(where=file.where(line), name="steps.planned", value=planned)
            complete = not record.metrics and record.total is not None and record.step >= (last or 0)
            last = record.step if record.metrics else last
            yield record
        if broken > 1:
            file.source.problem(f"{broken} lines are no JSON records")
        if complete and planned is not None:
            yield Fact(where=file.where(), name="run.completed", value=True)


def _lines(file: File) -> Iterator[bytes]:
    """Lines without their newline, in bounded memory (a line of over 1 MiB is no record: cut)."""
    rest = b""
    for chunk in file.chunks():
        parts = (rest + chunk).split(b"\n")
        rest = parts.pop()[: 1 << 20]
        yield from parts
    if rest:
        yield rest


def _lenient(raw: bytes) -> Any:
    """What strict JSON refuses and Python writes: NaN, Infinity; two records on one line (a torn write): the first whole one."""
    text = decode(raw)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    start = text.rfind('{"current_steps"')
    for part in (text[start:], text[:start]) if start > 0 else ():
        try:
            return json.loads(part)
        except (ValueError, RecursionError):
            continue
    return None


class _Layout(msgspec.Struct):
    """What to take of a record with these keys: files hold a handful of key sets."""

    step: str
    names: tuple[str, ...]
    values: Callable[[dict[str, Any]], tuple[Any, ...]]
    telling: bool


class _Records:
    """Turns decoded objects into records."""

    def __init__(self, file: File) -> None:
        self._name = file.name
        self._layouts: dict[tuple[str, ...], _Layout | None] = {}
        self._clock: tuple[Any, float | None] = (None, None)

    def record(self, values: dict[str, Any], line: int) -> Record | None:
        """The record of a line; None where it names no step."""
        keys = tuple(values)
        layout = self._layouts.get(keys) or self._learn(keys)
        if layout is None:
            return None
        step, total = values[layout.step], values.get("total_steps")
        if type(step) is not int or not 0 <= step < _LOSSLESS:
            return None
        try:
            metrics = dict(zip(layout.names, map(float, layout.values(values)), strict=False)) if layout.telling else {}
        except (TypeError, ValueError, OverflowError):
            metrics = _metrics(values)
        elapsed = values.get("elapsed_time")
        if elapsed != self._clock[0]:
            self._clock = (elapsed, duration_seconds(elapsed))
        where = Where(self._name, line, step)
        return Record(step, metrics, where, self._clock[1], total if type(total) is int and total > 0 else None)

    def _learn(self, keys: tuple[str, ...]) -> _Layout | None:
        step = next((key for key in _STEP_KEYS if key in keys), None)
        if step is None:
            return None
        wanted = [key for key in keys if _MEANT.get(key, key)]
        names = tuple(_MEANT.get(key, key) for key in wanted)
        values = itemgetter(*wanted, step)  # a tuple in any case: zip leaves the step out again
        layout = _Layout(step, names, values, not _PROGRESS.issuperset(names))
        if len(self._layouts) < 1000:
            self._layouts[keys] = layout
        return layout


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """Those values that are numbers, under trainer_state.json's names; nothing where only the progress is told."""
    named = ((_MEANT.get(key, key), number(value)) for key, value in values.items())
    metrics = {name: figure for name, figure in named if name and figure is not None}
    return {} if _PROGRESS.issuperset(metrics) else metrics
