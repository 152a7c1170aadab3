"""SwanLab: `run-ID.swanlab` or `backup.swanlab` of a run, and the config.yaml, swanlab-metadata.json and public config next to it.

Format: LevelDB's log (leveldb.py) of JSON objects (`model_type`, `data`; SwanLab 0.5 to 0.7) or of protobuf messages `Record`
(swanlab/record/v1/record.proto; since 0.8). Checked against files that SwanLab 0.6.8 and 0.10.3 wrote.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from doctor.core.events import MAX_STEP, ConfigSeen, Event, Fact
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.documents import yaml_mapping
from doctor.readers.file import File, Source
from doctor.readers.formats.leveldb import records
from doctor.readers.formats.protobuf import fields
from doctor.readers.trackers import metric_name, steps_of
from doctor.readers.values import number

_START, _SCALAR, _LOG = 10, 13, 16
"""Fields of Record."""
_PROJECT, _WORKSPACE, _ID = 1, 2, 10
"""Fields of StartRecord."""
_HEAD_RECORDS = 50
"""Records searched for the run's name; it is the first."""
_NO_METRICS = ("train/global_step", "__swanlab__")
"""Keys (their beginnings) that are no metrics of the run."""


class SwanLab(ReaderBase):
    """Scalars by step in the order of logging, and the console output that SwanLab recorded."""

    kind = "swanlab"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return head.startswith(b":SWL") or (not head and path.suffix == ".swanlab")

    def read(self, file: File, context: Context) -> Iterator[Event]:
        yield from steps_of(((step, metric_name(key), value, time) for key, step, value, time in _scalars(file)), file)

    def console(self, file: File) -> Iterator[bytes]:
        for data in records(file.chunks(), file.source.problem):
            if (line := _line(data)) is not None:
                yield line + b"\n"


class SwanLabConfig(ReaderBase):
    """config.yaml (`key: {desc: .., sort: .., value: ..}`), swanlab-metadata.json (cards, Python) and LLaMA-Factory's public config."""

    kind = "swanlab_config"

    def claims(self, path: Path, head: bytes) -> bool:
        named = path.name in ("swanlab-metadata.json", "swanlab_public_config.json")
        return named or (path.name == "config.yaml" and b"desc:" in head and b"sort:" in head and b"value:" in head)

    def configs(self, file: File) -> Iterator[Event]:
        values = yaml_mapping(file, 4 << 20)
        if values is None:
            return
        if file.path.name == "config.yaml":
            given = {key: entry["value"] for key, entry in values.items() if isinstance(entry, dict) and "value" in entry}
            options = {key: value for key, value in given.items() if value is not None and not key.startswith("_")}
            if options:
                yield ConfigSeen(where=file.where(), values=options, origin="events")
        else:
            yield from _machine(values, file)


class Started(NamedTuple):
    """Where SwanLab keeps a run; empty what its file does not say."""

    workspace: str = ""
    project: str = ""
    id: str = ""


def started(path: Path) -> Started:
    """The run that a file of SwanLab since 0.8 is of; older ones do not say it."""
    file = File(path, str(path), Source(str(path), SwanLab.kind, 0))
    for data in islice(records(file.chunks(), file.source.problem), _HEAD_RECORDS):
        if (body := _part(data, _START)) is not None:
            parts = _parts(body)
            names = (parts.get(number_, b"") for number_ in (_WORKSPACE, _PROJECT, _ID))
            return Started(*(name.decode("utf-8", "replace") if isinstance(name, bytes) else "" for name in names))
    return Started()


def _machine(values: dict[str, Any], file: File) -> Iterator[Event]:
    """Facts of the metadata: SwanLab 0.6 `{python, gpu: {nvidia: {type: [..]}}}`, 0.10 `{runtime: .., hardware: {accelerators: [..]}}`."""
    own = _inner(values, "swanlab")
    cards = _inner(values, "gpu", "nvidia").get("type")
    accelerators = _inner(values, "hardware").get("accelerators")
    if isinstance(accelerators, list):
        groups = [each["devices"] for each in accelerators if isinstance(each, dict) and isinstance(each.get("devices"), list)]
        cards = [device.get("name") for devices in groups for device in devices if isinstance(device, dict)]
    if isinstance(cards, list) and cards and isinstance(cards[0], str):
        yield Fact(where=file.where(), name="gpu.name", value=cards[0])
        yield Fact(where=file.where(), name="gpu.count", value=len(cards))
    python = values.get("python") or _inner(values, "runtime").get("python_version")
    for name, version in (("python", python), ("swanlab", own.get("version") or values.get("version"))):
        if isinstance(version, str):
            yield Fact(where=file.where(), name=f"versions.{name}", value=version)


def _inner(values: dict[str, Any], *names: str) -> dict[str, Any]:
    inner: Any = values
    for name in names:
        inner = inner.get(name) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}


def _scalars(file: File) -> Iterator[tuple[str, int, float, float | None]]:
    """(Key, step, value, time in Unix seconds) of every scalar of the run."""
    for data in records(file.chunks(), file.source.problem):
        scalar = _json_scalar(data) if data.startswith(b"{") else _message_scalar(data)
        if scalar is not None and 0 <= scalar[1] < MAX_STEP and not scalar[0].startswith(_NO_METRICS):
            yield scalar


def _json_scalar(data: bytes) -> tuple[str, int, float, float | None] | None:
    model = _json(data)
    metric = _inner(model, "data", "metric")
    key, step = _inner(model, "data").get("key"), _inner(model, "data").get("step", metric.get("index"))
    value = number(metric.get("data"))
    if model.get("model_type") != "Scalar" or not isinstance(key, str) or type(step) is not int or value is None:
        return None
    return key, step, value, _time(metric.get("create_time"))


def _message_scalar(data: bytes) -> tuple[str, int, float, float | None] | None:
    body = _part(data, _SCALAR)
    parts = _parts(body) if body is not None else {}
    key, step = parts.get(1), parts.get(2, 0)
    value = _parts(parts[5]).get(1) if isinstance(parts.get(5), bytes) else None
    if not isinstance(key, bytes) or type(step) is not int or not isinstance(value, bytes) or len(value) != 8:
        return None
    stamp = _parts(parts[4]) if isinstance(parts.get(4), bytes) else {}
    seconds, nanos = stamp.get(1), stamp.get(2, 0)
    time = seconds + nanos / 1e9 if type(seconds) is int and type(nanos) is int else None
    return key.decode("utf-8", "replace"), step, struct.unpack("<d", value)[0], time


def _line(data: bytes) -> bytes | None:
    """The console line in a record, or None."""
    if data.startswith(b"{"):
        model = _json(data)
        message = _inner(model, "data").get("message")
        return message.encode("utf-8", "replace") if model.get("model_type") == "Log" and isinstance(message, str) else None
    body = _part(data, _LOG)
    line = _parts(body).get(1, b"") if body is not None else None
    return line if isinstance(line, bytes) else None


def _json(data: bytes) -> dict[str, Any]:
    try:
        model = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            model = json.loads(data)
        except (ValueError, RecursionError):
            return {}
    return model if isinstance(model, dict) else {}


def _part(data: bytes, number_: int) -> bytes | None:
    part = _parts(data).get(number_)
    return part if isinstance(part, bytes) else None


def _parts(data: int | bytes) -> dict[int, int | bytes]:
    """The fields of a message, none for damaged ones."""
    try:
        return dict(fields(data)) if isinstance(data, bytes) else {}
    except (IndexError, ValueError):
        return {}


def _time(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None
