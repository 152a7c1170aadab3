"""The fields of tensorflow.Event that tell scalars and texts, without protobuf's machinery."""

from __future__ import annotations

import struct
from typing import Any

from doctor.readers.formats.protobuf import fields


def event(data: bytes) -> tuple[float, int, list[tuple[str, float | None, str | None]]]:
    """(wall time, step, [(tag, scalar, text)]) of one Event message; what is damaged or foreign is left out."""
    time, step = 0.0, 0
    values: list[tuple[str, float | None, str | None]] = []
    try:
        for field, value in fields(data):
            if field == 1 and type(value) is bytes:
                (time,) = struct.unpack("<d", value)
            elif field == 2 and type(value) is int:
                step = value if value < 1 << 63 else 0
            elif field == 5 and type(value) is bytes:
                values += [_summary_value(inner) for number, inner in fields(value) if number == 1 and type(inner) is bytes]
    except (struct.error, IndexError, ValueError):
        pass
    return time, step, values


def _summary_value(data: bytes) -> tuple[str, float | None, str | None]:
    tag, scalar, text = "", None, None
    for field, value in fields(data):
        if type(value) is not bytes:
            continue
        if field == 1:
            tag = value.decode("utf-8", "replace")
        elif field == 2 and len(value) == 4:
            scalar = struct.unpack("<f", value)[0]
        elif field == 8:
            scalar, text = _tensor(value)
    return tag, scalar, text


def _tensor(data: bytes) -> tuple[float | None, str | None]:
    """A scalar or text tensor (tensorflow.TensorProto: 1 dtype, 4 content, 5 floats, 6 doubles, 8 strings)."""
    kind: Any = None
    for field, value in fields(data):
        if field == 1:
            kind = value
        elif type(value) is not bytes:
            continue
        elif field == 8:
            return None, value.decode("utf-8", "replace")
        elif (field == 5 or (field == 4 and kind == 1)) and len(value) == 4:
            return struct.unpack("<f", value)[0], None
        elif (field == 6 or (field == 4 and kind == 2)) and len(value) == 8:
            return struct.unpack("<d", value)[0], None
    return None, None
