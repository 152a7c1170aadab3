"""A file of a run: opened, decompressed, as UTF-8, in bounded memory. What cannot be read is a problem of its `Source`, never an error."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from doctor.core.events import Where
from doctor.readers.formats.compression import MAGIC_BYTES, compression, decompression_errors, decompressor
from doctor.support.optional import MissingPackage

CHUNK = 1 << 20
"""Bytes read at a time."""
MAX_WHOLE = 64 << 20
"""Bytes: a file that must be read whole (JSON, YAML) is read up to this size."""
MAX_LEADING_NULS = 64 << 20
"""Bytes skipped at the beginning of a log that was truncated while its writer kept its offset."""
MAX_UNPACKED = 1 << 30
"""Bytes: decompressed data may reach this size, or `MAX_RATIO` times the compressed size if that is more."""
MAX_RATIO = 200
"""Progress bars compress about 60:1 with gzip; a bomb 1000:1."""
MAX_PROBLEMS = 20
"""Problems kept of one source."""
HEAD = 4096
"""Bytes by which readers recognise their files."""

_UTF16_SAMPLE, _UTF16_SHARE, _UTF16_NOISE = 512, 0.25, 0.05
"""Text without a byte order mark is UTF-16 if, of this many bytes, every second one is NUL: in 25 % more even than odd places (or the
reverse), and in at most 5 % of the others."""

Progress = Callable[[str, int, int], None]
"""Called for every chunk with the file's name, the chunk's bytes (decompressed) and the file's size in bytes (0 if unknown)."""


class Source(msgspec.Struct):
    """A file in the report's list: its reader (`kind`), its size, the records read and the problems met."""

    path: str
    kind: str
    bytes: int
    records: int = 0
    problems: list[str] = []

    def problem(self, text: str) -> None:
        """Note what could not be read, and why; each text once."""
        if len(self.problems) < MAX_PROBLEMS and text not in self.problems:
            self.problems.append(text)


class File:
    """A file to read. `name` is its path as the user knows it; `stream` replaces the file where the data can be read only once."""

    def __init__(self, path: Path, name: str, source: Source, stream: BinaryIO | None = None, progress: Progress | None = None) -> None:
        self.path, self.name, self.source = path, name, source
        self._stream, self._progress = stream, progress
        self._peeked: list[bytes] = []
        self._rest: Iterator[bytes] | None = None

    def where(self, line: int | None = None, step: int | None = None) -> Where:
        """A place in this file."""
        return Where(self.name, line, step)

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The content, decompressed, UTF-16 converted to UTF-8, about `size` bytes at a time.

        A file can be read repeatedly. A stream can be read once; bytes returned by `peek` and `head` come again.
        """
        for chunk in self._content(size) if self._stream is None else self._streamed():
            if self._progress is not None:
                self._progress(self.name, len(chunk), self.source.bytes)
            yield chunk

    def peek(self, size: int) -> bytes:
        """The first `size` bytes of the content."""
        if self._stream is None:
            return b"".join(_first(self._content(CHUNK), size))[:size]
        missing = size - sum(map(len, self._peeked))
        if missing > 0:
            self._peeked += _first(self._remaining(), missing)
        return b"".join(self._peeked)[:size]

    def whole(self, limit: int = MAX_WHOLE) -> bytes | None:
        """The content; None (and a problem) if it is larger than `limit` bytes."""
        parts, size = [], 0
        for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                self.source.problem(f"larger than {limit >> 20} MiB: not read")
                return None
            parts.append(chunk)
        return b"".join(parts)

    def text(self, limit: int = MAX_WHOLE) -> str | None:
        """`whole`, decoded."""
        data = self.whole(limit)
        return None if data is None else decode(data)

    def head(self, size: int) -> str:
        """`peek`, decoded."""
        return decode(self.peek(size))

    def _streamed(self) -> Iterator[bytes]:
        peeked, self._peeked = self._peeked, []
        yield from peeked
        yield from self._remaining()

    def _remaining(self) -> Iterator[bytes]:
        if self._rest is None:
            self._rest = self._content(CHUNK)
        return self._rest

    def _content(self, size: int) -> Iterator[bytes]:
        unpacked = self._unpacked(size)
        first = next(unpacked, b"")
        encoding = utf16(first)
        if encoding is None:
            yield first.removeprefix(codecs.BOM_UTF8)
            yield from unpacked
            return
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        yield decoder.decode(first).removeprefix("\ufeff").encode("utf-8", "replace")
        for chunk in unpacked:
            yield decoder.decode(chunk).encode("utf-8", "replace")

    def _unpacked(self, size: int) -> Iterator[bytes]:
        try:
            raw: io.RawIOBase = self.path.open("rb", buffering=0) if self._stream is None else _Pipe(self._stream)
            with io.BufferedReader(raw, size) as file:
                head = file.peek(MAGIC_BYTES)[:MAGIC_BYTES]
                if compression(head):
                    yield from self._decompressed(file, head, size)
                while chunk := file.read1(size):
                    yield chunk
        except OSError as error:
            self.source.problem(f"cannot be read: {error.strerror or error}")

    def _decompressed(self, file: Any, head: bytes, size: int) -> Iterator[bytes]:
        total = 0
        try:
            read = decompressor(file, head)
            while chunk := read(size):
                total += len(chunk)
                if total > max(MAX_UNPACKED, MAX_RATIO * self.source.bytes):
                    self.source.problem("unpacks to far more than a log would: not read further")
                    return
                yield chunk
        except MissingPackage as error:
            self.source.problem(f"not read: {error}")
        except decompression_errors() as error:
            self.source.problem(f"damaged {compression(head)} data: {error}")


def _first(chunks: Iterable[bytes], size: int) -> list[bytes]:
    """The first chunks that together have at least `size` bytes, or all of them."""
    parts: list[bytes] = []
    for chunk in chunks:
        parts.append(chunk)
        size -= len(chunk)
        if size <= 0:
            break
    return parts


class IteratorStream(io.RawIOBase):
    """A stream of the bytes that an iterator yields."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._rest = parts, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next((part for part in self._parts if part), b"")
        given, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


class _Pipe(io.RawIOBase):
    """A pipe for a BufferedReader: returns what has arrived instead of waiting for a full buffer."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        reader = getattr(self._stream, "read1", self._stream.read)
        data = reader(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def utf16(head: bytes) -> str | None:
    """The UTF-16 codec of a text with these first bytes (by its byte order mark or its NULs), or None."""
    if head.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if head.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    sample = head[:_UTF16_SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(sample) < 32 or abs(even - odd) < _UTF16_SHARE * len(sample) or min(even, odd) > _UTF16_NOISE * len(sample):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def decode(data: bytes) -> str:
    """Text of bytes: UTF-8 (broken bytes become U+FFFD), or GB 18030 (it includes GBK) if a third of the non-ASCII characters is broken."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    if broken * 3 < sum(character > "\x7f" for character in text):
        return text
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError:
        return text


_NUL_RUN = re.compile(rb"\0{8,}")


def unpacked_head(path: Path, size: int = HEAD) -> bytes:
    """The first bytes of a file, decompressed and without long runs of NUL; empty where it cannot be read."""
    head = b""
    try:
        with path.open("rb") as file:
            head = file.peek(size)[:size]
            if not compression(head):
                return _NUL_RUN.sub(b"", head) or _after_nuls(file, size) or head
            read = decompressor(file, head)
            head = b""
            while len(head) < size and (more := read(size - len(head))):
                head += more
    except MissingPackage:
        return head
    except decompression_errors():
        return head
    return head


def _after_nuls(file: BinaryIO, size: int) -> bytes:
    for _ in range(MAX_LEADING_NULS // CHUNK):
        chunk = file.read(CHUNK)
        if found := _NUL_RUN.sub(b"", chunk):
            return found[:size]
        if not chunk:
            break
    return b""
