"""trainer_log.jsonl: one JSON object a logging step, written by LLaMA-Factory's LogCallback (all key sets since 0.7)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.events import Event, Fact
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

    def claims(self, path: Path, head: bytes) -> bool:
        named = path.name.startswith("trainer_log") and ".json" in path.name
        return named or (path.name.endswith(".jsonl") and b'"current_steps"' in head)

    def read(self, file: File, context: Context) -> Iterator[Event | Record]:
        decode_json = msgspec.json.Decoder().decode
        planned = last = None
        broken, complete = 0, False
        for line, raw in enumerate(_lines(file), 1):
            raw = raw.strip(b" \t\r\0")
            if not raw:
                continue
            try:
                values = decode_json(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                values = _lenient(raw)
            record = _record(values, file, line) if type(values) is dict else None
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


def _record(values: dict[str, Any], file: File, line: int) -> Record | None:
    step = next((values[key] for key in _STEP_KEYS if key in values), None)
    if type(step) is not int or not 0 <= step < _LOSSLESS:
        return None
    metrics: dict[str, float] = {}
    telling = False
    for name, value in values.items():
        name = _MEANT.get(name, name)
        figure = value if type(value) is float else number(value) if name else None
        if name and figure is not None:
            metrics[name] = figure
            telling = telling or name not in _PROGRESS
    if not telling:
        metrics = {}
    total = values.get("total_steps")
    return Record(
        step=step,
        metrics=metrics,
        where=file.where(line, step),
        seconds=duration_seconds(values.get("elapsed_time")),
        total=total if type(total) is int and total > 0 else None,
    )
