"""trainer_log.jsonl: one JSON object a logging step, written by LLaMA-Factory's LogCallback (all key sets since 0.7)."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
_PIECE = 1 << 15
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
        planned = last = None
        records = _Records(file)
        complete = False
        for record in records.all():
            if record.total is not None and record.total != planned and "loss" in record.metrics:
                planned = record.total
                yield Fact(where=record.where, name="steps.planned", value=planned)
            complete = not record.metrics and record.total is not None and record.step >= (last or 0)
            last = record.step if record.metrics else last
            yield record
        if records.broken > 1:
            file.source.problem(f"{records.broken} lines are no JSON records")
        if complete and planned is not None:
            yield Fact(where=file.where(), name="run.completed", value=True)


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


class _Row(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line with the keys that LLaMA-Factory's LogCallback writes, from 0.7 on: decoded faster than as a dict of any keys."""

    current_steps: int
    total_steps: int | None = None
    loss: float | None = None
    lr: float | None = None
    learning_rate: float | None = None
    epoch: float | None = None
    percentage: float | None = None
    elapsed_time: str | None = None
    remaining_time: str | None = None
    throughput: float | None = None
    total_tokens: float | None = None
    eval_loss: float | None = None
    predict_loss: float | None = None
    reward: float | None = None
    accuracy: float | None = None
    vram_allocated: float | None = None
    vram_reserved: float | None = None

    def metrics(self) -> dict[str, float]:
        """As `_metrics` gives them, spelled out for the usual line: any table of names costs half a reading more."""
        if self.loss is None or self.eval_loss is not None or self.predict_loss is not None:
            return _metrics({name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None})
        out = {"loss": self.loss}
        rate = self.lr if self.learning_rate is None else self.learning_rate
        if rate is not None:
            out["learning_rate"] = rate
        if self.epoch is not None:
            out["epoch"] = self.epoch
        if self.throughput is not None:
            out["throughput"] = self.throughput
        if self.total_tokens is not None:
            out["total_tokens"] = self.total_tokens
        if self.reward is not None:
            out["reward"] = self.reward
        if self.accuracy is not None:
            out["rewards/accuracies"] = self.accuracy
        if self.vram_allocated is not None:
            out["vram_allocated_gib"] = self.vram_allocated
        if self.vram_reserved is not None:
            out["vram_reserved_gib"] = self.vram_reserved
        return out


class _Records:
    """Turns lines into records; what strict JSON refuses is looked at line by line."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._name = file.name
        self._line = 0
        self._minute: Any = None
        self._minute_seconds: float | None = None
        self.broken = 0

    def all(self) -> Iterator[Record]:
        """The records of the whole file, those without any metric too."""
        decode_lines = msgspec.json.Decoder(_Row).decode_lines
        for lines in self._pieces():
            try:
                rows = decode_lines(lines)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                rows = []
            if len(rows) == lines.count(b"\n") > 0:
                yield from self._usual(rows)
            else:
                yield from self._each(lines)

    def _pieces(self) -> Iterator[bytes]:
        """Some whole lines at a time, few enough for the processor's cache; a line of over 1 MiB is no record: cut."""
        rest = b""
        for chunk in self._file.chunks():
            data = rest + chunk
            place = 0
            while (stop := data.find(b"\n", place + _PIECE) + 1 or data.rfind(b"\n", place) + 1) > 0:
                yield data[place:stop]
                place = stop
            rest = data[place : place + (1 << 20)]
        if rest:
            yield rest

    def _usual(self, rows: list[_Row]) -> Iterator[Record]:
        source, name, line = self._file.source, self._name, self._line
        self._line += len(rows)
        for row in rows:
            line += 1
            step, total = row.current_steps, row.total_steps
            if 0 <= step < _LOSSLESS:
                source.records += 1
                planned = total if total is not None and total > 0 else None
                yield Record(step, row.metrics(), Where(name, line, step), self._elapsed(row.elapsed_time), planned)

    def _elapsed(self, text: Any) -> float | None:
        """Seconds of `elapsed_time`; of one minute's records only the first is read in full."""
        if type(text) is not str or text[-3:-2] != ":" or not text[-2:].isdecimal():
            return duration_seconds(text)
        if text[:-3] != self._minute:
            self._minute, self._minute_seconds = text[:-3], duration_seconds(text[:-2] + "00")
        return None if self._minute_seconds is None else self._minute_seconds + int(text[-2:])

    def _each(self, block: bytes) -> Iterator[Record]:
        """Of lines of which one at least is something else."""
        decode_json = msgspec.json.Decoder().decode
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for raw in lines:
            self._line += 1
            try:
                values = decode_json(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raw = raw.strip(b" \t\r\0")
                if not raw:
                    continue
                values = _lenient(raw)
            record = self._record(values, self._line) if type(values) is dict else None
            if record is not None:
                self._file.source.records += 1
                yield record
            elif type(values) is not dict:
                self.broken += 1
                if self.broken == 1:
                    self._file.source.problem(f"line {self._line} is no JSON record: skipped")

    def _record(self, values: dict[str, Any], line: int) -> Record | None:
        """The record of a line; None where it names no step."""
        step, total = next((values[key] for key in _STEP_KEYS if key in values), None), values.get("total_steps")
        if type(step) is not int or not 0 <= step < _LOSSLESS:
            return None
        where, seconds = Where(self._name, line, step), duration_seconds(values.get("elapsed_time"))
        return Record(step, _metrics(values), where, seconds, total if type(total) is int and total > 0 else None)


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """Those values that are numbers, under trainer_state.json's names; nothing where only the progress is told."""
    named = ((_MEANT.get(key, key), number(value)) for key, value in values.items())
    metrics = {name: figure for name, figure in named if name and figure is not None}
    return {} if _PROGRESS.issuperset(metrics) else metrics
