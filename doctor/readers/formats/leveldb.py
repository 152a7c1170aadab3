"""LevelDB's log format, used by W&B and SwanLab: blocks of 32 KiB, records with CRC-32, length and type.

https://github.com/google/leveldb/blob/main/doc/log_format.md, with a header of seven bytes before the first block's records.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator

_BLOCK = 32768
"""Bytes of a block."""
_MAX_RECORD = 64 << 20
"""Bytes; a longer record is dropped."""
_HEADER = 7
"""Bytes before the first block's records, and of each record's header (checksum, length, type)."""


def records(chunks: Iterable[bytes], problem: Callable[[str], None]) -> Iterator[bytes]:
    """The records of a file. One with a wrong checksum is left out, an incomplete one ends the reading; `problem` is called for both."""
    parts: list[bytes] = []
    size, place = 0, _HEADER
    for block in _blocks(chunks):
        while place + 7 <= len(block):
            checksum, length, kind = struct.unpack_from("<IHB", block, place)
            data = block[place + 7 : place + 7 + length]
            place += 7 + length
            if kind == 0 and length == 0:
                break
            if len(data) < length:
                problem("its last record is incomplete (the writer was killed, or still writes)")
                return
            if kind not in (1, 2, 3, 4) or zlib.crc32(bytes([kind]) + data) != checksum:
                problem("records with a wrong checksum: left out")
                parts.clear()
                continue
            if kind in (1, 2):
                parts.clear()
                size = 0
            elif not parts:  # the rest of a record whose beginning was left out
                continue
            parts.append(data)
            size += length
            if kind in (1, 4):
                yield b"".join(parts)
                parts.clear()
            elif size > _MAX_RECORD:
                parts.clear()
        place = 0


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        whole = len(data) - len(data) % _BLOCK
        for place in range(0, whole, _BLOCK):
            yield data[place : place + _BLOCK]
        rest = data[whole:]
    if rest:
        yield rest
