"""CRC-32C of many short messages at once, and TFRecord's mask over it.

A CRC is linear over GF(2): that of a message is the exclusive or of what each of its bytes alone would give at its place, so one table
look-up per byte position serves all messages of one length. Polynomial and mask: TensorFlow's core/lib/hash/crc32c.h; RFC 3720 B.4.
"""

from __future__ import annotations

from typing import Any

from doctor.support.optional import need

_POLYNOMIAL = 0x82F63B78
_PIECE = 4096
"""Longer messages are taken in pieces of so many bytes."""


def _table() -> list[int]:
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        out.append(byte)
    return out


_BYTE = _table()
_places: list[Any] = []


def checksum(data: bytes) -> int:
    """The masked CRC-32C of one message."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _BYTE[(value ^ byte) & 255] ^ (value >> 8)
    return _masked(value ^ 0xFFFFFFFF)


def _masked(value: int) -> int:
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def checksums(columns: Any) -> Any:
    """Masked CRCs (uint32, one a message) of messages of one length: `columns` is uint8, one row a byte position, one column a message."""
    np = need("numpy", "fast")

    length, count = columns.shape
    state = np.full(count, 0xFFFFFFFF, dtype=np.uint32)
    for start in range(0, length, _PIECE):
        piece = columns[start : start + _PIECE]
        state = _piece(piece, state)
    value = ~state
    return (value >> np.uint32(15) | value << np.uint32(17)) + np.uint32(0xA282EAD8)


def _piece(columns: Any, state: Any) -> Any:
    """The register behind these bytes; `state` is what it was before them: it acts like bytes of the message."""
    np = need("numpy", "fast")

    length = len(columns)
    tables = _tables(max(length, 4))
    out = np.zeros_like(state)
    for place in range(max(length, 4)):
        before = (state >> np.uint32(8 * place)).astype(np.uint8) if place < 4 else None
        if place >= length:  # fewer than four bytes: what is left of the register only moves down
            out ^= (state >> np.uint32(8 * length)) & np.uint32((1 << (32 - 8 * length)) - 1) if place == length else np.uint32(0)
            continue
        byte = columns[place] if before is None else columns[place] ^ before
        out ^= tables[length - 1 - place][byte]
    return out


def _tables(length: int) -> list[Any]:
    """For each distance from a message's end, what every byte value there adds to the register."""
    np = need("numpy", "fast")

    if not _places:
        _places.append(np.array(_BYTE, dtype=np.uint32))
    while len(_places) < length:
        last = _places[-1]
        _places.append(_places[0][last & np.uint32(255)] ^ (last >> np.uint32(8)))
    return _places
