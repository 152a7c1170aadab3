"""LevelDB's log format (W&B, SwanLab): whole records only, whatever was damaged between them."""

from __future__ import annotations

import struct
import zlib

import pytest

from doctor.readers.formats.leveldb import records

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
BAD = "records with a wrong checksum: left out"


def part(kind: int, data: bytes, *, damaged: bool = False) -> bytes:
    """A record or a fragment of one: checksum, length, type, data."""
    return struct.pack("<IHB", zlib.crc32(bytes([kind]) + data) ^ damaged, len(data), kind) + data


def read(*parts: bytes) -> tuple[list[bytes], list[str]]:
    """The records of a file with these parts, and what was wrong with it."""
    problems: list[str] = []
    return list(records([b"7 bytes", *parts], problems.append)), problems


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([part(FIRST, b"a"), part(MIDDLE, b"b", damaged=True), part(LAST, b"c"), part(FULL, b"d")], [b"d"]),
        ([part(FIRST, b"a"), part(MIDDLE, b"b", damaged=True), part(FIRST, b"c"), part(LAST, b"d")], [b"cd"]),
        ([part(FIRST, b"a", damaged=True), part(MIDDLE, b"b"), part(LAST, b"c"), part(FULL, b"d")], [b"d"]),
        ([part(FULL, b"a", damaged=True), part(FULL, b"b")], [b"b"]),
    ],
)
def test_a_damaged_part_costs_its_record_alone(parts: list[bytes], whole: list[bytes]) -> None:
    """Fragments of a damaged record are neither told as a record nor joined to the next."""
    found, problems = read(*parts)
    assert found == whole
    assert problems == [BAD]


def test_fragments_are_joined() -> None:
    """First, middle and last are one record; an incomplete one ends the reading."""
    assert read(part(FIRST, b"a"), part(MIDDLE, b"b"), part(LAST, b"c"), part(FULL, b"d")) == ([b"abc", b"d"], [])
    found, problems = read(part(FULL, b"a"), part(FULL, b"bcd")[:-1])
    assert found == [b"a"]
    assert problems == ["its last record is incomplete (the writer was killed, or still writes)"]
