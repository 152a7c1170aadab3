"""trainer_log.jsonl: one JSON object a logging step, written by LLaMA-Factory's LogCallback (all key sets since 0.7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import Event, Fact, Step, Where
from doctor.readers.base import Context, File, Lane, ReaderBase, decode, duration_seconds, number
from doctor.support.decoding import json_decoder

_MEANT = {
    "lr": "learning_rate",
    "accuracy": "rewards/accuracies",
    "vram_allocated": "vram_allocated_gib",
    "vram_reserved": "vram_reserved_gib",
    **dict.fromkeys(("current_steps", "total_steps", "percentage", "elapsed_time", "remaining_time", "step", "global_step"), ""),
}
"""Names of the file -> names of trainer_state.json; empty: no metric."""
_PROGRESS = frozenset({"epoch", "throughput", "total_tokens", "vram_allocated_gib", "vram_reserved_gib"})
_BLOCK = 1 << 17
"""Small enough for the processor's cache to hold a block and its steps."""
_STEP_KEYS = ("current_steps", "step", "global_step")
_LOSSLESS = 1 << 52
_SECONDS = {f"{second:02d}": second for second in range(60)}


class TrainerLog(ReaderBase):
    """Also LLaMA-Factory's v1 trainer (`step` instead of `current_steps`); a line that is no JSON costs that line."""

    kind = "trainer_log"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        named = path.name.startswith("trainer_log") and ".json" in path.name
        return named or (path.name.endswith(".jsonl") and b'"current_steps"' in head)

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        log = _Log(file)
        yield from log.events()
        if log.broken > 1:
            file.source.problem(f"{log.broken} lines are no JSON records")
        if log.complete and log.planned is not None:
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


class BasicRow(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line of a loss as LLaMA-Factory's LogCallback writes it (0.9.1 on): what has other keys, or nulls, is no such line."""

    current_steps: int
    total_steps: int
    loss: float
    lr: float
    epoch: float
    percentage: float
    elapsed_time: str
    remaining_time: str


class TokenRow(BasicRow, gc=False, forbid_unknown_fields=True):
    """With include_num_input_tokens_seen."""

    throughput: float
    total_tokens: float


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


class _Log:
    """The events of one file: stretches of usual lines at once, other lines as they may come."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._name = file.name
        self._line = 0
        self._minute = ""
        self._minute_seconds: float | None = None
        self._last = -1
        self._decode: Callable[[bytes], list[Any]] | None = None
        self.broken = 0
        self.planned: int | None = None
        self.complete = False

    def events(self) -> Iterator[Event | list[Step]]:
        """The steps, and the number of them that is planned."""
        decode_lines = json_decoder(_Row).decode_lines
        for lines in self._pieces():
            if (steps := self._quick(lines)) is not None:
                yield steps
                continue
            try:
                rows = decode_lines(lines)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                rows = []
            told = self._rows(rows) if len(rows) == lines.count(b"\n") > 0 else self._each(lines)
            for step, total in told:
                yield from self.emit(step, total)
            self._decode = self._usual(lines)

    def _usual(self, lines: bytes) -> Callable[[bytes], list[Any]] | None:
        """What decodes the lines that are like the last one here."""
        last = lines[lines.rfind(b"\n", 0, -1) + 1 :]
        for kind in (TokenRow, BasicRow):
            decoder = json_decoder(kind)
            try:
                decoder.decode(last)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            return decoder.decode_lines
        return None

    def _quick(self, lines: bytes) -> list[Step] | None:
        """The steps of usual lines only, one later than the other, of the plan that is known; None for any other lines."""
        if self._decode is None:
            return None
        try:
            rows = self._decode(lines)
            if not rows or len(rows) != lines.count(b"\n"):
                return None
            return self._steps(rows)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
            return None

    def _steps(self, rows: list[Any]) -> list[Step] | None:
        """KeyError for a time that is none."""
        name, line, planned, last = self._name, self._line, self.planned, self._last
        minute, begun, moment = self._minute, self._minute_seconds, 0.0
        counted = type(rows[0]) is TokenRow
        out: list[Step] = []
        for row in rows:
            line += 1
            step, elapsed = row.current_steps, row.elapsed_time
            if elapsed[:-2] != minute:
                minute = elapsed[:-2]
                begun = duration_seconds(minute + "00")
            if step <= last or row.total_steps != planned or begun is None or (seconds := begun + _SECONDS[elapsed[-2:]]) < moment:
                return None
            last, moment = step, seconds
            if counted:
                metrics = {
                    "loss": row.loss, "learning_rate": row.lr, "epoch": row.epoch, "throughput": row.throughput,
                    "total_tokens": row.total_tokens,
                }  # fmt: skip
            else:
                metrics = {"loss": row.loss, "learning_rate": row.lr, "epoch": row.epoch}
            out.append(Step(where=Where(name, line, step), step=step, metrics=metrics, seconds=seconds))
        if last >= _LOSSLESS:
            return None
        self._line, self._last, self._minute, self._minute_seconds = line, last, minute, begun
        self._file.source.records += len(out)
        self.complete = False
        return out

    def emit(self, step: Step, total: int | None) -> Iterator[Event]:
        if total is not None and total != self.planned and "loss" in step.metrics:
            self.planned = total
            yield Fact(where=step.where, name="steps.planned", value=total)
        self.complete = not step.metrics and total is not None and step.step >= max(self._last, 0)
        if step.metrics:
            self._last = step.step
        yield step

    def _pieces(self) -> Iterator[bytes]:
        """Some whole lines at a time; a line of over 1 MiB is no record: cut."""
        rest = b""
        for chunk in self._file.chunks(_BLOCK):
            data = rest + chunk
            stop = data.rfind(b"\n") + 1
            if stop:
                yield data[:stop]
            rest = data[stop : stop + (1 << 20)]
        if rest:
            yield rest

    def _rows(self, rows: list[_Row]) -> Iterator[tuple[Step, int | None]]:
        for row in rows:
            self._line += 1
            step, total = row.current_steps, row.total_steps
            if 0 <= step < _LOSSLESS:
                self._file.source.records += 1
                where, seconds = Where(self._name, self._line, step), duration_seconds(row.elapsed_time)
                planned = total if total is not None and total > 0 else None
                yield Step(where=where, step=step, metrics=row.metrics(), seconds=seconds), planned

    def _each(self, block: bytes) -> Iterator[tuple[Step, int | None]]:
        """Of lines of which one at least is something else."""
        decode_json: Callable[[bytes], Any] = json_decoder(Any).decode
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

    def _record(self, values: dict[str, Any], line: int) -> tuple[Step, int | None] | None:
        """The step of a line and how many are planned; None where it names no step."""
        step, total = next((values[key] for key in _STEP_KEYS if key in values), None), values.get("total_steps")
        if type(step) is not int or not 0 <= step < _LOSSLESS:
            return None
        where, seconds = Where(self._name, line, step), duration_seconds(values.get("elapsed_time"))
        planned = total if type(total) is int and total > 0 else None
        return Step(where=where, step=step, metrics=_metrics(values), seconds=seconds), planned


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    """Those values that are numbers, under trainer_state.json's names; nothing where only the progress is told."""
    named = ((_MEANT.get(key, key), number(value)) for key, value in values.items())
    metrics = {name: figure for name, figure in named if name and figure is not None}
    return {} if _PROGRESS.issuperset(metrics) else metrics
