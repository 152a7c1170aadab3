"""Weights & Biases: the binary `run-ID.wandb` of a run (offline or not), and the config.yaml and wandb-metadata.json next to it.

Format: LevelDB's log (leveldb.py) of protobuf messages `Record` (wandb/proto/wandb_internal.proto). Checked against files that wandb 0.31
wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from doctor.config.recognise import LLAMAFACTORY_ONLY
from doctor.core.events import MAX_STEP, ConfigSeen, Event, Fact, Step
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.documents import yaml_mapping
from doctor.readers.file import File, Source
from doctor.readers.formats.leveldb import records
from doctor.readers.formats.protobuf import fields
from doctor.readers.trackers import metric_name
from doctor.readers.values import flags, number

_HISTORY, _CONFIG, _OUTPUT, _RUN = 2, 5, (4, 13), 17
"""Fields of Record: history, config, output and output_raw, run."""
_LINE = 3
"""Field of OutputRecord with the text."""
_KEY, _NESTED, _JSON = 1, 2, 16
"""Fields of HistoryItem and ConfigItem."""
_HEAD_RECORDS = 50
"""Records searched for the configuration; it is among the first."""
_MIN_TELLING = 2
"""Options that only LLaMA-Factory has, in the words of a command that is taken for one of its own: one alone (`--dataset`) is anybody's."""
_STEP = "train/global_step"
_MAX_EARLY = 1 << 20
"""Rows without a training step that are held until one comes; they are dropped if it does."""


class Wandb(ReaderBase):
    """Every logged row. Its step is train/global_step where that was logged, else W&B's own count of calls."""

    kind = "wandb"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return head.startswith(b":W&B") or (not head and path.suffix == ".wandb")

    def configs(self, file: File) -> Iterator[Event]:
        values: dict[str, Any] = {}
        for count, data in enumerate(records(file.chunks(), file.source.problem)):
            if count > _HEAD_RECORDS:
                break
            for field, value in _safe(data):
                if type(value) is bytes and field in (_CONFIG, _RUN):
                    for inner in (
                        [value] if field == _CONFIG else [entry for name, entry in _safe(value) if name == 4 and type(entry) is bytes]
                    ):
                        values.update(_items(inner))
        file.source.problems.clear()
        yield from _options(values, file)

    def read(self, file: File, context: Context) -> Iterator[Event]:
        early: list[Step] = []
        trained: int | None = None
        for data in records(file.chunks(), file.source.problem):
            for field, value in _safe(data):
                if field != _HISTORY or type(value) is not bytes:
                    continue
                record, counted = _row(value, file, trained)
                if record is None:
                    continue
                file.source.records += 1
                if counted:
                    trained, early = record.step, []
                if trained is None and len(early) < _MAX_EARLY:
                    early.append(record)
                else:
                    yield record
        yield from early

    def console(self, file: File) -> Iterator[bytes]:
        for data in records(file.chunks(), file.source.problem):
            for field, value in _safe(data):
                if field in _OUTPUT and type(value) is bytes:
                    yield from (text for name, text in _safe(value) if name == _LINE and type(text) is bytes)


class WandbConfig(ReaderBase):
    """config.yaml (`key: {value: ...}`) and wandb-metadata.json (GPU, Python, command line)."""

    kind = "wandb_config"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return path.name == "wandb-metadata.json" or (path.name == "config.yaml" and b"wandb_version" in head)

    def configs(self, file: File) -> Iterator[Event]:
        values = yaml_mapping(file, 4 << 20)
        if values is None:
            return
        if file.path.name == "wandb-metadata.json":
            yield from _machine(values, file)
        else:
            yield from _options(
                {key: entry["value"] for key, entry in values.items() if isinstance(entry, dict) and "value" in entry}, file
            )


def run_path(path: Path) -> str:
    """ENTITY/PROJECT/ID of a run, as `wandb.Api().run` takes it; without the parts that its file does not say. Empty without an id."""
    file = File(path, str(path), Source(str(path), Wandb.kind, 0))
    for data in islice(records(file.chunks(), file.source.problem), _HEAD_RECORDS):
        for field, value in _safe(data):
            if field == _RUN and type(value) is bytes:
                parts = {name: text.decode("utf-8", "replace") for name, text in _safe(value) if type(text) is bytes and name <= 3}
                return "/".join(filter(None, (parts.get(2), parts.get(3), parts.get(1)))) if parts.get(1) else ""
    return ""


def _safe(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    try:
        yield from fields(data)
    except (IndexError, ValueError):
        return


def _items(data: bytes, wanted: int = 1) -> Iterator[tuple[str, Any]]:
    """(Key, value) of a HistoryRecord's or ConfigRecord's items."""
    for field, item in _safe(data):
        if field != wanted or type(item) is not bytes:
            continue
        names: list[str] = []
        value: Any = None
        for part, inner in _safe(item):
            if type(inner) is not bytes:
                continue
            if part in (_KEY, _NESTED):
                names.append(inner.decode("utf-8", "replace"))
            elif part == _JSON:
                try:
                    value = json.loads(inner)
                except (ValueError, RecursionError):
                    value = None
        if names:
            yield "/".join(names), value


def _row(data: bytes, file: File, trained: int | None) -> tuple[Step | None, bool]:
    """(A row, whether it names its training step). `trained` is the last training step: W&B's own count is another thing."""
    values = dict(_items(data))
    step = values.get(_STEP, values.get("global_step"))
    counted = type(step) is int
    if not counted:
        step = values.get("_step") if trained is None else trained
    if type(step) is not int:
        step = next((_count(inner) for field, inner in _safe(data) if field == 2 and type(inner) is bytes), None)
    if type(step) is not int or not 0 <= step < MAX_STEP:
        return None, False
    metrics = {}
    for key, value in values.items():
        figure = number(value)
        if figure is not None and not key.startswith("_") and key not in (_STEP, "global_step"):
            metrics[_name(key)] = figure
    where, time = file.where(step=step), number(values.get("_timestamp"))
    return (Step(where=where, step=step, metrics=metrics, time=time) if metrics else None), counted


def _count(data: bytes) -> int:
    return next((value for field, value in _safe(data) if field == 1 and type(value) is int), 0)


def _name(key: str) -> str:
    if key == "lr":
        return "learning_rate"
    return metric_name(key)


def _options(values: dict[str, Any], file: File) -> Iterator[Event]:
    options = {key: value for key, value in values.items() if value is not None and not key.startswith("_")}
    if "evaluation_strategy" in options:  # the name up to transformers 4.45
        options.setdefault("eval_strategy", options.pop("evaluation_strategy"))
    if options:
        yield ConfigSeen(where=file.where(), values=options, origin="events")


def _machine(values: dict[str, Any], file: File) -> Iterator[Event]:
    """The command's options and facts about the machine."""
    options = flags(values["args"]) if isinstance(values.get("args"), list) else {}
    if len(options.keys() & LLAMAFACTORY_ONLY) >= _MIN_TELLING:
        yield Fact(where=file.where(), name="framework", value="llamafactory")
        yield ConfigSeen(where=file.where(), values=options, origin="command")
    count = values.get("gpu_count")
    if isinstance(values.get("gpu"), str):
        yield Fact(where=file.where(), name="gpu.name", value=values["gpu"])
    if type(count) is int and count > 0:
        yield Fact(where=file.where(), name="gpu.count", value=count)
    cards = values.get("gpu_nvidia")
    card = cards[0] if isinstance(cards, list) and cards and isinstance(cards[0], dict) else {}
    memory = card.get("memoryTotal", card.get("memory_total"))
    if (total := number(memory)) is not None and total > 0:
        yield Fact(where=file.where(), name="gpu.total_gib", value=round(total / 2**30, 2))
    if isinstance(values.get("python"), str):
        yield Fact(where=file.where(), name="versions.python", value=values["python"].removeprefix("CPython "))
