"""trainer_log.jsonl: one JSON object per logging step, written by LLaMA-Factory's LogCallback (all key sets since 0.7)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import MAX_STEP, ConfigSeen, Event, Fact, Step, Where
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.file import File, decode
from doctor.readers.origins import stage_of
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
_STAGE_WITHIN = 4096
"""Bytes that hold the first records."""
_BLOCK = 1 << 17
"""Bytes decoded at once; a block and its steps fit the processor's cache."""
_MAX_LINE = 1 << 20
"""Bytes; a longer line is no record and is cut."""


class TrainerLog(ReaderBase):
    """A line that is no JSON costs that line."""

    kind = "trainer_log"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        named = path.name.startswith("trainer_log") and ".json" in path.name
        return named or (path.name.endswith(".jsonl") and b'"current_steps"' in head)

    def configs(self, file: File) -> Iterator[Event]:
        head = file.head(_STAGE_WITHIN)
        if '"current_steps"' in head and '"total_steps"' in head:
            yield Fact(where=file.where(), name="framework", value="llamafactory")
        if (stage := stage_of(head)) is not None:
            yield ConfigSeen(where=file.where(), values={"stage": stage}, origin="inferred")

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        log = _Log(file)
        for block in _blocks(file):
            yield from log.events(_records(block))
            if log.useless > _MAX_USELESS:
                file.source.problem(f"more than {_MAX_USELESS} lines name no step: the rest is not read")
                break
        if log.reached is not None:
            yield [log.reached]
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


class _Row(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A record with the keys that LLaMA-Factory's LogCallback writes: decoded twice as fast as into a dict."""

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
        """As `_metrics`, spelled out for training records: a loop over names takes twice as long."""
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


_decoder = json_decoder(_Row)
_MAX_USELESS = 200_000
"""Lines without a step, after which a file is left: a second's work. A bomb of 2 MB holds a hundred million."""
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
    """One decoded line of any JSON. NaN and Infinity are accepted; of two records on a line (a torn write), the last one that is whole."""
    raw = raw.strip(b" \t\r\0")
    if not raw:
        return _BLANK
    text = decode(raw)
    start = text.rfind('{"current_steps"')
    for part in (text, *((text[start:], text[:start]) if start > 0 else ())):
        try:
            return json.loads(part)
        except (ValueError, RecursionError):
            continue
    return None


class _Log:
    """Turns records into steps. `planned` is the total number of steps, `complete` whether the last record says that it was reached.

    `reached` is the last step, if nothing was logged at it.
    """

    def __init__(self, file: File) -> None:
        self._file, self._name = file, file.name
        self._line = 0
        self._last = -1
        self.damaged = self.useless = 0
        self.planned: int | None = None
        self.complete = False
        self.reached: Step | None = None

    def events(self, records: Iterable[Any]) -> Iterator[Event | list[Step]]:
        """Steps in lists (ascending, with times that do not go back), and the fact steps.planned where it changes."""
        steps: list[Step] = []
        last, moment = -1, 0.0
        for record in records:
            self._line += 1
            row = record if type(record) is _Row else self._row(record)
            if row is None or not 0 <= (number := row.current_steps) < MAX_STEP:
                self.useless += 1
                continue
            self._file.source.records += 1
            total, seconds = row.total_steps, _elapsed_seconds(row.elapsed_time)
            metrics = row.metrics()
            self.complete = not metrics and total is not None and total > 0 and number >= max(self._last, 0)
            if not metrics:
                self._reach(number, row)
                continue
            self.reached = None
            if self.planned and number < self._last and total != self.planned and "loss" not in metrics:
                number = self._last  # an evaluation after the training counts its own batches
            changed = total is not None and total != self.planned and total > 0 and row.loss is not None
            if steps and (changed or number <= last or (seconds is not None and seconds < moment)):
                yield steps
                steps, moment = [], 0.0
            where = Where(self._name, self._line, number)
            if changed:
                self.planned = total
                yield Fact(where=where, name="steps.planned", value=total)
            self._last = last = number
            moment = moment if seconds is None else seconds
            steps.append(Step(where=where, step=number, metrics=metrics, seconds=seconds))
        if steps:
            yield steps

    def _reach(self, number: int, row: _Row | _OtherRow) -> None:
        """Note a record that only says how far the training is, as the last one of a run does."""
        epoch = getattr(row, "epoch", None)
        if epoch is not None and row.total_steps == self.planned and number > self._last:
            self.reached = Step(where=Where(self._name, self._line, number), step=number, metrics={"epoch": epoch})

    def _row(self, record: Any) -> _OtherRow | None:
        """A record that is no `_Row`; None if it names no step or is no record at all."""
        if type(record) is dict:
            step, total = next((record[key] for key in _STEP_KEYS if key in record), None), record.get("total_steps")
            return _OtherRow(step, total if type(total) is int else None, record) if type(step) is int else None
        if record is not _BLANK:
            self.damaged += 1
            if self.damaged == 1:
                self._file.source.problem(f"line {self._line} is no JSON record: skipped")
        return None


class _OtherRow:
    """A record with other keys or values."""

    def __init__(self, step: int, total: int | None, record: dict[str, Any]) -> None:
        self.current_steps, self.total_steps, self._record = step, total, record
        self.elapsed_time = record.get("elapsed_time")
        self.loss = number(record.get("loss"))

    def metrics(self) -> dict[str, float]:
        """As `_metrics`."""
        return _metrics(self._record)


def _elapsed_seconds(text: Any) -> float | None:
    """`duration_seconds`, with the minute remembered: neighbours share it."""
    if type(text) is not str:
        return None
    minute = _minute_seconds(text[:-2])
    if minute is None or not text[-2:].isdecimal():
        return duration_seconds(text)
    return minute + int(text[-2:])


@lru_cache(maxsize=16)
def _minute_seconds(text: str) -> float | None:
    return duration_seconds(f"{text}00")


def _metrics(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record under trainer_state.json's names; none if it only says how far the run is."""
    named = ((_NAMES.get(key, key), number(value)) for key, value in record.items())
    metrics = {name: figure for name, figure in named if name and figure is not None}
    return {} if _PROGRESS_METRICS.issuperset(metrics) else metrics
