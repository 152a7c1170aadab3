"""Runs made by hand for the tests of the readers, and what was read of them by kind."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from doctor.core.events import ConfigSeen, Crash, Event, Fact, LogLine, ProcessEnd, Step
from doctor.readers import reading


class Seen:
    """Everything that one reading told."""

    def __init__(self, *paths: str | Path, **options: Any) -> None:
        self.reading = reading.read(paths, **options)
        self.events = list(self.reading.events())
        self.problems = [problem for source in self.reading.sources for problem in source.problems]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    @property
    def steps(self) -> list[Step]:
        return self.of(Step)

    @property
    def crashes(self) -> list[Crash]:
        return self.of(Crash)

    @property
    def lines(self) -> list[LogLine]:
        return self.of(LogLine)

    @property
    def ends(self) -> list[ProcessEnd]:
        return self.of(ProcessEnd)

    @property
    def config(self) -> dict[str, Any]:
        return {key: value for event in self.of(ConfigSeen) for key, value in event.values.items()}

    @property
    def facts(self) -> dict[str, Any]:
        return {event.name: event.value for event in self.of(Fact)}

    def series(self, name: str) -> list[tuple[int, float]]:
        return [(step.step, step.metrics[name]) for step in self.steps if name in step.metrics]


def console(folder: Path, text: str | bytes, name: str = "console.log", **options: Any) -> Seen:
    """What a console of this text tells."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Seen(path, **options)


def jsonl(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def log_record(step: int, total: int = 8, **more: Any) -> dict[str, Any]:
    """One record of trainer_log.jsonl, of LLaMA-Factory 0.9.1 on."""
    shape = {"current_steps": step, "total_steps": total, "loss": 3.0 - step / 10, "lr": 5e-05, "epoch": step / 4, "percentage": 12.5,
             "elapsed_time": f"0:00:{step:02d}", "remaining_time": "0:00:10"}  # fmt: skip
    return {key: value for key, value in (shape | more).items() if value is not ...}


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, appendix B.4): the polynomial's definition, not a library."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """TFRecord's mask over it: rotated right by 15 bits, plus a constant."""
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """A TFRecord frame."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", checksum(length)) + data + struct.pack("<I", checksum(data))


def field(number: int, value: bytes | int | float) -> bytes:
    """One protobuf field: varint of an int, 64 bit of a float, length-prefixed bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def scalar_event(step: int, tag: str, value: float, *, tensor: bool = False, time: float = 1.7e9) -> bytes:
    """A frame with one scalar, as a simple value or (newer writers) as a tensor."""
    plain = varint(2 << 3 | 5) + struct.pack("<f", value)
    as_tensor = field(8, field(1, 1) + field(4, struct.pack("<f", value)))
    return frame(field(1, float(time)) + field(2, step) + field(5, field(1, field(1, tag.encode()) + (as_tensor if tensor else plain))))


def text_event(tag: str, text: str) -> bytes:
    """A frame with one text."""
    return frame(field(1, 1.7e9) + field(5, field(1, field(1, tag.encode()) + field(8, field(1, 7) + field(8, text.encode())))))
