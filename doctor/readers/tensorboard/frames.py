"""TFRecord frames, and the scalars in them: many events at once, by the places at which their bytes differ."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from doctor.readers.base import File
from doctor.readers.tensorboard.crc import checksum, checksums
from doctor.readers.tensorboard.message import event
from doctor.support.optional import need, optional

_LONGEST = 64 << 20
_AROUND = 16
"""Bytes of a frame beside its data: length (8), its CRC (4), the data's CRC (4)."""
_BLOCK = 4 << 20
_FORMS = 64
"""So many forms (tag, length of the step) are tried on the events of one length; others are read one by one."""
_FEW = 16
"""Fewer events of one length than this are read one by one."""
_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_SCALAR = re.compile(
    rb"\x09(?P<time>.{8})(?:\x10(?P<step>%b))?\x2a%b\x0a%b\x0a%b(?P<tag>.{1,1000})\x15(?P<value>.{4})" % ((_VARINT,) * 4), re.S
)
"""tensorflow.Event with one simple value: 1 wall_time, 2 step, 5 summary { 1 value { 1 tag, 2 simple_value } }, in every writer's order."""

Scalar = tuple[float, int, str, float]
"""Wall time in Unix seconds, step, tag, value."""


def frames(file: File) -> Iterator[bytes]:
    """The data of every whole frame whose checksum is right; what follows a damaged length is left, with a problem in the source."""
    for data, starts in _frames(file):
        for start in starts:
            if (inner := _checked(data, start, file)) is not None:
                yield inner


def scalars(file: File) -> Iterator[Scalar]:
    """Every scalar, in the file's order."""
    for data, starts in _frames(file):
        if len(starts) < _FEW or optional("numpy", "fast") is None:
            for start in starts:
                yield from _one(data, start, file)
        else:
            yield from _block(data, starts, file)


def _frames(file: File) -> Iterator[tuple[bytes, list[int]]]:
    """Blocks of bytes and the places at which whole frames begin in them."""
    rest = b""
    for data in _blocks(file.chunks()):
        data = rest + data
        starts, place, damaged = _walk(data)
        yield data, starts
        if damaged:
            file.source.problem("damaged: not read beyond the damage")
            return
        rest = data[place:]
    if rest:
        file.source.problem("its last event is incomplete (the writer was killed, or still writes)")


def _blocks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks put together to some megabytes."""
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        parts.append(chunk)
        held += len(chunk)
        if held >= _BLOCK:
            yield b"".join(parts)
            parts, held = [], 0
    yield b"".join(parts)


def _walk(data: bytes) -> tuple[list[int], int, bool]:
    """(Where whole frames begin, where the first one that is not whole does, whether its length cannot be right)."""
    length_at = struct.Struct("<Q").unpack_from
    starts: list[int] = []
    place, size = 0, len(data)
    while size - place >= _AROUND:
        (length,) = length_at(data, place)
        after = place + length + _AROUND
        if after > size:
            return starts, place, length > _LONGEST
        starts.append(place)
        place = after
    return starts, place, False


def _checked(data: bytes, start: int, file: File) -> bytes | None:
    """The data of one frame; None where its checksum is wrong."""
    length, told = struct.unpack_from("<QI", data, start)
    inner = data[start + 12 : start + 12 + length]
    (mask,) = struct.unpack_from("<I", data, start + 12 + length)
    if checksum(data[start : start + 8]) == told and checksum(inner) == mask:
        return inner
    _wrong(file)
    return None


def _wrong(file: File) -> None:
    file.source.problem("events with a wrong checksum: left out")


def _one(data: bytes, start: int, file: File) -> Iterator[Scalar]:
    inner = _checked(data, start, file)
    if inner is not None:
        time, step, values = event(inner)
        yield from ((time, step, tag, value) for tag, value, _ in values if value is not None)


def _block(data: bytes, starts: list[int], file: File) -> Iterator[Scalar]:
    """The scalars of many frames: those of one length and form together."""
    np = need("numpy", "fast")

    whole = np.frombuffer(data, dtype=np.uint8)
    places = np.array(starts, dtype=np.int64)
    lengths = whole[places[:, None] + np.arange(8)].view("<u8").ravel().astype(np.int64)
    times, values = np.zeros(len(places)), np.zeros(len(places), dtype=np.float32)
    steps, tags = np.zeros(len(places), dtype=np.int64), np.full(len(places), -1, dtype=np.int64)
    known: list[str] = []
    singly: list[int] = []
    for length in np.unique(lengths).tolist():
        these = np.flatnonzero(lengths == length)
        if len(these) < _FEW or length > 4096:
            singly += these.tolist()
            continue
        columns = whole[np.arange(length + _AROUND)[:, None] + places[these]]
        good = _right(columns, length)
        if not good.all():
            _wrong(file)
            these, columns = these[good], columns[:, good]
        left = _forms(columns[12:-4], these, (times, steps, tags, values), known)
        singly += left.tolist()
    odd = {place: list(_one(data, starts[place], file)) for place in singly}
    rows = zip(times.tolist(), steps.tolist(), tags.tolist(), values.tolist(), strict=True)
    for place, (time, step, tag, value) in enumerate(rows):
        if tag >= 0:
            yield time, step, known[tag], value
        elif place in odd:
            yield from odd[place]


def _right(columns: Any, length: int) -> Any:
    """Which frames have both checksums right."""
    np = need("numpy", "fast")

    expected = np.frombuffer(struct.pack("<I", checksum(struct.pack("<Q", length))), dtype=np.uint8)
    good = (columns[8:12] == expected[:, None]).all(axis=0)
    told = np.ascontiguousarray(columns[-4:].T).view("<u4").ravel()
    return good & (checksums(columns[12:-4]) == told)


def _forms(columns: Any, these: Any, out: tuple[Any, Any, Any, Any], known: list[str]) -> Any:
    """Reads the events that look like the first one but for time, step and value, then those like the next first one, and so on.

    Writes into `out` (times, steps, tag numbers, values) at `these`; returns those of no form.
    """
    np = need("numpy", "fast")

    left = np.arange(len(these))
    strange: list[Any] = []
    for _ in range(_FORMS):
        if not len(left):
            break
        found = _SCALAR.fullmatch(columns[:, left[0]].tobytes())
        told = event(found[0])[2] if found else []
        if found is None or len(told) != 1 or told[0][1] is None or len(told[0][0].encode()) != len(found["tag"]):
            strange.append(left[:1])
            left = left[1:]
            continue
        alike = left[_alike(columns, left, found)]
        left = np.setdiff1d(left, alike, assume_unique=True)
        tag = told[0][0]
        if tag not in known:
            known.append(tag)
        _take(columns[:, alike], these[alike], found, known.index(tag), out)
    return these[np.concatenate([*strange, left])] if strange or len(left) else these[:0]


def _alike(columns: Any, left: Any, found: re.Match[bytes]) -> Any:
    """Which of the events have the same bytes outside of time, step and value, and a step of the same length."""
    np = need("numpy", "fast")

    free = {place for name in ("time", "step", "value") for place in range(*found.span(name))}
    fixed = [place for place in range(len(columns)) if place not in free]
    model = columns[:, left[0]]
    alike = np.ones(len(left), dtype=bool)
    tag = list(range(*found.span("tag")))
    for place in [*reversed(tag), *(place for place in fixed if place not in tag)]:
        alike &= columns[place][left] == model[place]
    for place in range(*found.span("step")):
        alike &= (columns[place][left] ^ model[place]) < 128
    return alike


def _take(columns: Any, these: Any, found: re.Match[bytes], tag: int, out: tuple[Any, Any, Any, Any]) -> None:
    np = need("numpy", "fast")

    times, steps, tags, values = out
    at = found.start("time")
    times[these] = np.ascontiguousarray(columns[at : at + 8].T).view("<f8").ravel()
    at = found.start("value")
    values[these] = np.ascontiguousarray(columns[at : at + 4].T).view("<f4").ravel()
    tags[these] = tag
    step = np.zeros(len(these), dtype=np.uint64)
    for shift, place in enumerate(range(*found.span("step"))):
        if shift < 9:
            step |= (columns[place] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * shift)
    steps[these] = step.astype(np.int64)
