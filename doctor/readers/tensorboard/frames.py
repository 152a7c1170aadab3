"""TFRecord frames: length (8 bytes), its checksum (4), data, its checksum (4). tensorflow/core/lib/io/record_writer.h."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from doctor.readers.file import File
from doctor.support.optional import optional

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER, _FOOTER = 12, 4
"""Bytes before and after a frame's data."""
_MAX_DATA = 64 << 20
"""Bytes; a length beyond is damage, and so is 0: every event has its time. TensorBoard's largest records are images of a few MiB."""
_MASK_DELTA = 0xA282EAD8
"""tensorflow/core/lib/hash/crc32c.h: a checksum is rotated right by 15 bits and increased by this."""

Checksum = Callable[[bytes], int]


def crc32c() -> Checksum | None:
    """TFRecord's masked CRC-32C if google-crc32c is installed (`lfdoctor[fast]`), else None."""
    library = optional("google_crc32c", "fast")
    if library is None:
        return None
    value = library.value

    def masked(data: bytes) -> int:
        checksum: int = value(data)
        return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF

    return masked


def frames(file: File) -> Iterator[bytes]:
    """The data of every whole frame.

    Checksums are verified where google-crc32c is installed; a frame with a wrong one is left out. Without it a damaged frame is
    recognised by its length or when it is parsed. Nothing is read behind a damaged length. Damage is a problem of the source.
    """
    checksum = crc32c()
    rest = b""
    for chunk in file.chunks():
        data = rest + chunk
        start, size = 0, len(data)
        while size - start >= _HEADER:
            (length,) = _LENGTH.unpack_from(data, start)
            stop = start + _HEADER + length
            if not 0 < length <= _MAX_DATA or (checksum and checksum(data[start : start + 8]) != _CHECKSUM.unpack_from(data, start + 8)[0]):
                file.source.problem("damaged: not read beyond the damage")
                return
            if stop + _FOOTER > size:
                break
            inner = data[start + _HEADER : stop]
            if checksum is None or checksum(inner) == _CHECKSUM.unpack_from(data, stop)[0]:
                yield inner
            else:
                file.source.problem("events with a wrong checksum: left out")
            start = stop + _FOOTER
        rest = data[start:]
    if rest:
        file.source.problem("its last event is incomplete (the writer was killed, or still writes)")
