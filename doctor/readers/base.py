"""What every reader is, and the file it is handed."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import msgspec

from doctor.config import yaml_edit
from doctor.core.events import Event, Step, Where
from doctor.readers.formats.gunzip import Gunzip
from doctor.support.literal_search import LinePatterns
from doctor.support.optional import MissingPackage, need

CHUNK = 1 << 20
WHOLE = 64 << 20
"""Files that must be read whole (JSON, YAML) are read up to this size."""
_NULS = 64 << 20
BOMB = 1 << 30
"""Compressed data may become this large, or two hundred times its size."""
PROBLEMS = 20
"""So many problems are kept of one source."""

progress: Callable[[str, int, int], None] | None = None
"""Told of every chunk that is read: the file, the bytes of the chunk (decompressed), the file's size (0 where it is not known)."""

Lane = Literal["config", "metrics", "text"]


class Source(msgspec.Struct):
    """One file that was looked at: `records` and `problems` fill while it is read."""

    path: str
    kind: str
    bytes: int
    records: int = 0
    problems: list[str] = []

    def problem(self, text: str) -> None:
        """Notes what could not be read, and why."""
        if len(self.problems) < PROBLEMS and text not in self.problems:
            self.problems.append(text)


class Context(msgspec.Struct):
    """What is known before the logs are read: the lines that somebody wants (None = all of them; `sieve` says the same more narrowly),
    the configuration and the facts so far. `helped`: a second process may look through a large log."""

    literals: frozenset[str] | None = None
    line_patterns: LinePatterns | None = None
    allow_subprocess: bool = False
    config: dict[str, Any] = {}
    facts: dict[str, Any] = {}


class Reader(Protocol):
    """One file format. A reader never raises on damaged input: it notes a problem in the source and yields what is whole.

    `configs` yields what is known before the run (ConfigSeen, Fact) and looks at the beginning of the file at most where the file
    is a log; `read` yields events in file order; a `Step` of it is what this one file says of a step, before the files are joined (its
    `attempt` is counted then); a list holds many of them, of rising steps and times, none without metrics. `lane` says what `read` can
    yield: nothing (config), steps only (metrics), or text and steps (text).
    """

    kind: str
    lane: Lane

    def claims(self, path: Path, head: bytes) -> bool:
        """Whether the file is of this format; `head` holds its first 4 KiB, decompressed."""
        ...

    def configs(self, file: File) -> Iterator[Event]:
        """What the file tells about the run as a whole."""
        ...

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        """What happened, in the file's order."""
        ...


class ReaderBase:
    """The usual answers; a reader overrides what it can do."""

    kind = ""
    lane: Lane = "config"
    output = False
    """Whether a training leaves such files in its output folder: a folder that holds one is a run (`lfdoctor scan`)."""

    def configs(self, file: File) -> Iterator[Event]:
        return iter(())

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        return iter(())

    def console(self, file: File) -> Iterator[bytes]:
        """The console that the file keeps beside other things: read where the run left no console of its own."""
        return iter(())


class IteratorStream(io.RawIOBase):
    """A stream of bytes that are made as they are asked for."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._rest = parts, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next((part for part in self._parts if part), b"")
        given, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


class File:
    """A file to read, its name as the user knows it, and its entry in the report's list of sources."""

    def __init__(self, path: Path, name: str, source: Source, stream: BinaryIO | None = None) -> None:
        self.path, self.name, self.source, self._stream = path, name, source, stream
        self._held: list[bytes] = []
        self._generator: Iterator[bytes] | None = None

    @property
    def streamed(self) -> bool:
        """Whether it can be read once only."""
        return self._stream is not None

    def where(self, line: int | None = None, step: int | None = None) -> Where:
        """A place in this file."""
        return Where(self.name, line, step)

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """As `_chunks`, telling `progress` how far the file is read."""
        for chunk in self._chunks(size):
            if progress is not None:
                progress(self.name, len(chunk), self.source.bytes)
            yield chunk

    def _chunks(self, size: int) -> Iterator[bytes]:
        """The file's bytes, decompressed, UTF-16 turned into UTF-8, `size` at a time; what cannot be read is noted, never raised.

        A file can be read again and again; standard input once, except for what `peek` and `head` looked at.
        """
        if self._stream is None:
            yield from self._converted(size)
            return
        held, self._held = self._held, []
        yield from held
        yield from self._running()

    def peek(self, size: int) -> bytes:
        """The first bytes (a stream keeps them for `chunks`)."""
        if self._stream is None:
            return b"".join(self._until(self._converted(CHUNK), size))[:size]
        if sum(map(len, self._held)) < size:
            self._held += self._until(self._running(), size - sum(map(len, self._held)))
        return b"".join(self._held)[:size]

    @staticmethod
    def _until(chunks: Iterator[bytes], size: int) -> list[bytes]:
        parts: list[bytes] = []
        for chunk in chunks:
            parts.append(chunk)
            size -= len(chunk)
            if size <= 0:
                break
        return parts

    def _running(self) -> Iterator[bytes]:
        if self._generator is None:
            self._generator = self._converted(CHUNK)
        return self._generator

    def _converted(self, size: int) -> Iterator[bytes]:
        raw = self._raw(size)
        first = next(raw, b"")
        encoding = utf16(first)
        if encoding is None:
            yield first.removeprefix(codecs.BOM_UTF8)
            yield from raw
            return
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        yield decoder.decode(first).removeprefix("\ufeff").encode("utf-8", "replace")
        for chunk in raw:
            yield decoder.decode(chunk).encode("utf-8", "replace")

    def _raw(self, size: int) -> Iterator[bytes]:
        try:
            raw: io.RawIOBase = self.path.open("rb", buffering=0) if self._stream is None else _Raw(self._stream)
            with io.BufferedReader(raw, size) as file:
                if packed(file.peek(6)[:6]):
                    yield from self._unzip(file, size)
                while chunk := file.read1(size):
                    yield chunk
        except OSError as error:
            self.source.problem(f"cannot be read: {error.strerror or error}")

    def _unzip(self, file: Any, size: int) -> Iterator[bytes]:
        """Unpacks in bounded memory; what becomes over a gigabyte and two hundred times its size is left at that point."""
        unpacked = 0
        try:
            kind = packed(file.peek(6)[:6])
            read = unpacking(file, file.peek(6)[:6])
            while chunk := read(size):
                unpacked += len(chunk)
                if unpacked > max(BOMB, 200 * self.source.bytes):
                    self.source.problem("unpacks to far more than a log would: not read further")
                    return
                yield chunk
        except MissingPackage as error:
            self.source.problem(f"not read: {error}")
        except damage() as error:
            self.source.problem(f"damaged {kind} data: {error}")

    def whole(self, limit: int = WHOLE) -> bytes | None:
        """The file's bytes if they are at most `limit`, else None (and a problem)."""
        parts, size = [], 0
        for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                self.source.problem(f"larger than {limit >> 20} MiB: not read")
                return None
            parts.append(chunk)
        return b"".join(parts)

    def text(self, limit: int = WHOLE) -> str | None:
        """The file's text if it is at most `limit` bytes, else None (and a problem)."""
        data = self.whole(limit)
        return None if data is None else decode(data)

    def head(self, size: int) -> str:
        """The beginning of the file's text."""
        return decode(self.peek(size))


class _Raw(io.RawIOBase):
    """A pipe for a BufferedReader: gives what is there instead of waiting for a full block."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        reader = getattr(self._stream, "read1", self._stream.read)
        data = reader(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def metric_name(key: str) -> str:
    """trainer_state.json's name of a metric that a tracker keeps under `train/` or `eval/`."""
    if key.startswith("train/"):
        return key[6:]
    return f"eval_{key[5:]}" if key.startswith("eval/") else key


def steps_of(points: Iterable[tuple[int, str, float, float | None]], file: File) -> Iterator[Step]:
    """Steps of single (step, name, value, time): neighbours of one step are one, with the first one's time; a name twice is another."""
    held: Step | None = None
    for step, name, value, time in points:
        file.source.records += 1
        if held is not None and held.step == step and name not in held.metrics:
            held.metrics[name] = value
            continue
        if held is not None:
            yield held
        held = Step(where=file.where(step=step), step=step, metrics={name: value}, time=time)
    if held is not None:
        yield held


def utf16(head: bytes) -> str | None:
    """The UTF-16 codec of a text that begins like this, or None. Without a mark: most second bytes are NUL."""
    if head.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if head.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    sample = head[:512]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(sample) < 32 or abs(even - odd) < 0.25 * len(sample) or min(even, odd) > 0.05 * len(sample):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def decode(data: bytes) -> str:
    """Text of bytes: UTF-8, else the Chinese code pages (GB 18030 holds GBK), else UTF-8 with what is broken replaced."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    strange = text.count("\ufffd")
    if strange * 3 < sum(character > "\x7f" for character in text):
        return text
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError:
        return text


_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
_PACKED_NAMES = (".gz", ".zst", ".xz", ".bz2")


def packed(head: bytes) -> str | None:
    """How a file that begins like this is compressed."""
    return next((kind for magic, kind in _PACKED.items() if head.startswith(magic)), None)


def plain_name(path: Path) -> str:
    """The file's name without what a compressor put behind it."""
    return path.stem if path.suffix.lower() in _PACKED_NAMES else path.name


def unpacking(file: Any, head: bytes) -> Callable[[int], bytes]:
    """Reads up to so many decompressed bytes, those before damage too. Raises MissingPackage where zstd's library is missing."""
    kind = packed(head)
    if kind == "zstd":
        zstandard = need("zstandard", "zstd", "zstd")
        unzst: Callable[[int], bytes] = (
            zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file, read_across_frames=True).read
        )
        return unzst
    streams: dict[str | None, Callable[[Any], Any]] = {
        "gzip": Gunzip,
        "xz": lzma.LZMAFile,
        "bzip2": bz2.BZ2File,
    }
    read: Callable[[int], bytes] = streams[kind](file).read1
    return read


def damage() -> tuple[type[Exception], ...]:
    """What unpacking raises on damaged data."""
    zstandard = sys.modules.get("zstandard")
    return (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, *((zstandard.ZstdError,) if zstandard else ()))


def unpacked_head(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file, decompressed; empty where it cannot be read.

    Long runs of NULs are left out: a log has them that was cut to nothing while its writer went on.
    """
    head = b""
    try:
        with path.open("rb") as file:
            head = file.peek(size)[:size]
            if not packed(head):
                return _NUL_RUN.sub(b"", head) or _behind_nuls(file, size) or head
            read = unpacking(file, head)
            head = b""
            while len(head) < size and (more := read(size - len(head))):
                head += more
    except MissingPackage:
        return head
    except damage():
        return head
    return head


_NUL_RUN = re.compile(rb"\0{8,}")


def _behind_nuls(file: BinaryIO, size: int) -> bytes:
    for _ in range(_NULS // CHUNK):
        chunk = file.read(CHUNK)
        if found := _NUL_RUN.sub(b"", chunk):
            return found[:size]
        if not chunk:
            break
    return b""


_DURATION = re.compile(r"(?:(-?\d+) days?, )?(\d+):(\d\d):(\d\d)(?:\.\d+)?")


def duration_seconds(text: Any) -> float | None:
    """Seconds of `1 day, 0:08:23` or `0:04:56` (Python's str(timedelta))."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    days, hours, minutes, seconds = found.groups()
    return float((int(days) * 86400 if days else 0) + int(hours) * 3600 + int(minutes) * 60 + int(seconds))


def option_value(text: str) -> Any:
    """What an option's value means as LLaMA-Factory reads it: `5e-5` -> 5e-05, `yes` -> True; what is no value of its own stays text."""
    try:
        return yaml_edit.load(f"value: {text}")["value"] if text.strip() else text
    except (yaml_edit.NotReadable, KeyError):
        return text


_SPECIAL = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "+inf": float("inf")}


def number(value: Any) -> float | None:
    """A metric's value: numbers, numbers as text, nan and inf under any spelling; None for everything else."""
    if isinstance(value, float):
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return float(value) if abs(value) < 1 << 1000 else None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return _SPECIAL.get(value.strip().lower().removesuffix("inity"))
    return None


def numbers(record: Mapping[str, Any], skip: frozenset[str] = frozenset()) -> dict[str, float]:
    """Those entries of a record that are numbers, as floats."""
    out = {}
    for name, value in record.items():
        if name not in skip and isinstance(name, str):
            if type(value) is float:
                out[name] = value
            elif (converted := number(value)) is not None:
                out[name] = converted
    return out
