"""One multi-pattern pass over a console's bytes finds the lines that anybody may want; the others are not read.

The engine is Hyperscan (BSD; the `hyperscan` wheel), which finds a thousand literals several times faster than ripgrep
(benchmarks/readers_speed.py). Without its wheel `scanner` returns None and every line goes through the `LineFilter`, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from doctor.readers.console.lines import MAX_LINE, MAX_TEXT
from doctor.support.literal_search import database, escaped
from doctor.support.optional import need, package_folder

Scan = Callable[[bytes], list[int]]
"""Takes a block; returns the ends (offset after the last byte) of everything found in it, ascending."""

_CLEARED = b" " * 10 + b"\r"
"""End of what tqdm writes to clear a bar."""
ALWAYS = (b"\x1b", _CLEARED, b"| 0/", b"| 1/")
"""Always found: colours (the filter needs the text without them), a bar that was cleared to print something, a bar that begins."""
_BAR_WITHIN = 4096
"""Bytes from the edge of a part in which its first or last bar is searched for."""
_BAR_LENGTH = 400
"""Bytes of a bar at most: a wide terminal's."""
_SHORT = 2000
"""Bytes; a shorter line is read whole."""
_NEWLINE = 10
_BYTES_PER_FIND = 500
"""With more finds than one in this many bytes, all line ends of a block are located at once (faster)."""


def scanner(structure: Iterable[str], wanted: Iterable[str], count: list[int]) -> Scan | None:
    """A pass that finds these literals; None without Hyperscan. `count[0]` is increased by each find of a `wanted` one."""
    first = {word.encode() for word in wanted if word}
    others = {*(word.encode() for word in structure), *ALWAYS} - first
    made = database(list(map(escaped, (*sorted(first), *sorted(others)))))
    if made is None or package_folder("numpy", "fast") is None:
        return None
    found: list[int] = []
    limit = len(first)

    def hit(number: int, _start: int, end: int, _flags: int, _context: Any) -> None:
        found.append(end)
        if number < limit:
            count[0] += 1

    def scan(block: bytes) -> list[int]:
        found.clear()
        made.scan(block, match_event_handler=hit)
        return found

    return scan


def without_leading_nuls(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Drop NULs at the beginning: a log that was truncated while its writer kept its offset has them."""
    begun = False
    for chunk in chunks:
        text = chunk if begun else chunk.lstrip(b"\0")
        begun = begun or bool(text)
        if text:
            yield text


def is_utf8(data: bytes) -> bool:
    """Whether these whole lines are UTF-8: expressions with non-ASCII characters are compiled for it."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Blocks of whole lines, as (bytes, whether they end a line); a line longer than `MAX_LINE` (bars without newline) comes in pieces."""
    rest = b""
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        view = memoryview(chunk)
        if cut:
            yield b"".join((rest, view[:cut])), True
            rest = bytes(view[cut:])
        else:
            rest += chunk
        if len(rest) > MAX_LINE:
            cut = rest.rfind(b"\r", 0, len(rest) - 1) + 1 or len(rest)
            yield rest[:cut], False
            rest = rest[cut:]
    if rest:
        yield rest, False


class Found(NamedTuple):
    """Finds in a block with `lines` line ends. For each find, ascending: its end (offset after its last byte), the number of its line
    in the block (from 0), where that line starts, and where its newline is (or would be).
    """

    lines: int
    ends: list[int]
    numbers: list[int]
    starts: list[int]
    stops: list[int]


def locate_lines(data: bytes, ends: list[int]) -> Found:
    """The lines of finds that end at `ends`."""
    numpy = need("numpy", "fast")

    breaks = numpy.frombuffer(data, dtype=numpy.uint8) == _NEWLINE
    lines = int(numpy.count_nonzero(breaks))
    if len(ends) * _BYTES_PER_FIND > len(data):
        places = numpy.flatnonzero(breaks)
        number = numpy.searchsorted(places, numpy.array(ends) - 1)
        edges = numpy.concatenate(([-1], places, [len(data)]))
        return Found(lines, ends[:], number.tolist(), (edges[number] + 1).tolist(), edges[number + 1].tolist())
    found = Found(lines, ends[:], [], [], [])
    line, start, stop = 0, 0, -1
    for end in ends:
        if end > stop + 1 or stop < 0:
            begun, start = start, data.rfind(b"\n", start, end - 1) + 1 or start
            line += int(numpy.count_nonzero(breaks[begun:start]))
            stop = data.find(b"\n", end - 1)
            stop = len(data) if stop < 0 else stop
        found.numbers.append(line)
        found.starts.append(start)
        found.stops.append(stop)
    return found


def relevant_part(data: bytes, start: int, stop: int, ends: list[int], number: int) -> bytes:
    """A line without most of its progress bars. It keeps what was found, the bars before and after, and the last bar.

    `ends[number:]` are the finds from this line on.
    """
    if stop - start <= _SHORT:
        return data[start:stop]
    parts: list[bytes] = []
    done = start
    while number < len(ends) and ends[number] <= stop:
        place = ends[number] - 1
        number += 1
        if place < done:
            continue
        low = max(done, place - MAX_TEXT // 2)
        first = max(low, data.rfind(b"\r", low, place) + 1)
        shown = data.rfind(b"%|", max(done, first - _SHORT), first)
        if shown >= 0:
            first = max(done, data.rfind(b"\r", done, shown) + 1, shown - _BAR_LENGTH)
        last = data.find(b"\r", place, stop)
        after = data.find(b"\r", last + 1, stop) if last >= 0 else -1
        upto = min(stop if after < 0 else after, place + MAX_TEXT)
        parts.append(data[first:upto])
        done = upto + 1
    shown = data.rfind(b"%|", max(done, stop - _BAR_WITHIN), stop) if done < stop else -1
    if shown >= 0:
        parts.append(data[max(done, data.rfind(b"\r", done, shown) + 1) : stop])
    return b"\r".join(parts)


def last_segment(data: bytes, start: int, stop: int, ends: list[int], number: int) -> int:
    """Start of the text after a line's last carriage return; -1 if anything but the clearing of bars was found before it."""
    place = data.rfind(b"\r", start, stop) + 1 or start
    while number < len(ends) and ends[number] <= place:
        if not data.endswith(_CLEARED, start, ends[number]):
            return -1
        number += 1
    return place if number < len(ends) and ends[number] <= stop else -1


def bars(data: bytes, start: int, stop: int) -> list[bytes]:
    """The decisive bars of a part without finds: the last bar of the line with the first bar, and the last bar of all."""
    first = data.find(b"%|", start, min(stop, start + _BAR_WITHIN))
    last = data.rfind(b"%|", max(start, stop - _BAR_WITHIN), stop)
    if first >= 0:
        end = data.find(b"\n", first, min(stop, first + _BAR_WITHIN))
        first = data.rfind(b"%|", first, stop if end < 0 else end)
    return [_segment(data, place, start, stop) for place in dict.fromkeys((first, last)) if place >= 0]


def _segment(data: bytes, place: int, low: int, high: int) -> bytes:
    """The bytes between carriage returns or newlines around `place`, a few hundred at most."""
    low, high = max(low, place - _BAR_LENGTH), min(high, place + _BAR_LENGTH)
    first = max(data.rfind(b"\r", low, place), data.rfind(b"\n", low, place)) + 1 or low
    last = data.find(b"\r", place, high)
    last = data.find(b"\n", place, high if last < 0 else last) if last < 0 or b"\n" in data[place:last] else last
    return data[first : high if last < 0 else last]
