"""Compressed streams: gzip, zstd, xz and bzip2, recognised by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doctor.support.optional import need

MAGIC_BYTES = 6
"""Length of the longest magic number below."""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
_SUFFIXES = (".gz", ".zst", ".xz", ".bz2")
_ZSTD_WINDOW = 1 << 27
"""Bytes of zstd's window at most: what `zstd --long` (27 bits) needs and the command line tool accepts by default."""


def compression(head: bytes) -> str | None:
    """The compression of a file with these first bytes, or None."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def plain_name(path: Path) -> str:
    """The file's name without a compression suffix."""
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def decompressor(file: Any, head: bytes) -> Callable[[int], bytes]:
    """A function that returns up to `size` decompressed bytes of `file`, empty at the end.

    Of a file that was cut off, everything before the cut is returned before it raises. Raises MissingPackage without zstd's library,
    later one of `decompression_errors()`.
    """
    kind = compression(head)
    if kind == "zstd":
        zstandard = need("zstandard", "zstd", "zstd")
        stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(file, read_across_frames=True)
        unpack: Callable[[int], bytes] = stream.read
        return unpack
    readers: dict[str | None, Callable[[Any], Any]] = {"gzip": _gzip, "xz": lzma.LZMAFile, "bzip2": bz2.BZ2File}
    read: Callable[[int], bytes] = readers[kind](file).read1
    return read


def _gzip(file: Any) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=file)


def decompression_errors() -> tuple[type[Exception], ...]:
    """What a decompressor raises on damaged data (zstd's own error only where its library is loaded)."""
    zstandard = sys.modules.get("zstandard")
    return (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, *((zstandard.ZstdError,) if zstandard else ()))
