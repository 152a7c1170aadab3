"""The fields of the protobuf message tensorflow.Event that hold scalars and texts."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from doctor.readers.formats.protobuf import fields

_WALL_TIME, _STEP, _SUMMARY = 1, 2, 5
"""Fields of tensorflow.Event."""
_VALUE, _TAG, _SIMPLE_VALUE, _TENSOR = 1, 1, 2, 8
"""Fields of tensorflow.Summary (value) and Summary.Value (tag, simple_value, tensor)."""
_TYPE, _CONTENT, _FLOATS, _DOUBLES, _STRINGS = 1, 4, 5, 6, 8
"""Fields of tensorflow.TensorProto."""
_FLOAT_TYPE, _DOUBLE_TYPE = 1, 2
"""tensorflow.DataType."""
_MAX_STEP = 1 << 63


class Event(NamedTuple):
    """One message: wall time in Unix seconds, step, and the summary's values as (tag, scalar, text).

    `damaged`: the message ends in what is no protobuf; the fields before it are kept.
    """

    time: float
    step: int
    values: list[tuple[str, float | None, str | None]]
    damaged: bool = False


_VARINT = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_SCALAR = re.compile(
    rb"\x09(?P<time>.{8})(?:\x10(?P<step>%b))?\x2a%b\x0a%b\x0a(?P<size>[\x00-\x7f])(?P<tag>[ -~]{1,127})\x15(?P<value>.{4})"
    % ((_VARINT,) * 3),
    re.S,
)
"""A message with one simple value under an ASCII tag, the fields in every writer's order: nearly all messages of a run."""


def parse(data: bytes) -> Event:
    """The scalars and texts of a message."""
    if (found := _SCALAR.fullmatch(data)) is not None and found["size"][0] == len(found["tag"]):
        time, value = struct.unpack("<df", found["time"] + found["value"])
        step = 0
        for byte in reversed(found["step"] or b""):
            step = step << 7 | byte & 127
        return Event(time, step, [(found["tag"].decode(), value, None)])
    time, step = 0.0, 0
    values: list[tuple[str, float | None, str | None]] = []
    damaged = False
    try:
        for field, value in fields(data):
            if field == _WALL_TIME and type(value) is bytes:
                (time,) = struct.unpack("<d", value)
            elif field == _STEP and type(value) is int:
                step = value if value < _MAX_STEP else 0
            elif field == _SUMMARY and type(value) is bytes:
                values += [_summary_value(inner) for number, inner in fields(value) if number == _VALUE and type(inner) is bytes]
    except (struct.error, IndexError, ValueError):
        damaged = True
    return Event(time, step, values, damaged)


def _summary_value(data: bytes) -> tuple[str, float | None, str | None]:
    tag, scalar, text = "", None, None
    for field, value in fields(data):
        if type(value) is not bytes:
            continue
        if field == _TAG:
            tag = value.decode("utf-8", "replace")
        elif field == _SIMPLE_VALUE and len(value) == 4:
            scalar = struct.unpack("<f", value)[0]
        elif field == _TENSOR:
            scalar, text = _tensor(value)
    return tag, scalar, text


def _tensor(data: bytes) -> tuple[float | None, str | None]:
    """A tensor that is a scalar or a text, as (scalar, text)."""
    kind: int | bytes | None = None
    for field, value in fields(data):
        if field == _TYPE:
            kind = value
        elif type(value) is not bytes:
            continue
        elif field == _STRINGS:
            return None, value.decode("utf-8", "replace")
        elif (field == _FLOATS or (field == _CONTENT and kind == _FLOAT_TYPE)) and len(value) == 4:
            return struct.unpack("<f", value)[0], None
        elif (field == _DOUBLES or (field == _CONTENT and kind == _DOUBLE_TYPE)) and len(value) == 8:
            return struct.unpack("<d", value)[0], None
    return None, None
