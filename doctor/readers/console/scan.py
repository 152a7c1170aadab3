"""One multi-pattern pass over a console's bytes: where does something stand that anybody could want? The rest is not looked at.

The engine is Hyperscan (BSD; the `hyperscan` wheel), which finds a thousand literals in a fraction of the time that ripgrep takes for
them (benchmarks/readers_speed.py). Where its wheel is missing, `scanner` gives None and every line goes through the `Gate` instead:
the same answers, later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from doctor.readers.console.lines import CUT, LONGEST
from doctor.support.literal_search import database, escaped
from doctor.support.optional import need, package_folder

Scan = Callable[[bytes], list[int]]
"""Takes a block; gives the ends (offset behind the last byte) of everything found in it, rising."""

SMALL = 4 << 20
"""So many bytes go through the gate before a scanner is built: building costs what looking at them does."""
_CLEARED = b" " * 10 + b"\r"
ALWAYS = (b"\x1b", _CLEARED, b"| 0/", b"| 1/")
"""Colours (the gate looks at the text without them), a progress bar that was cleared to print something, a bar that begins."""
_NEAR = 4096
_WIDE = 400
_SHORT = 2000
_NEWLINE = 10
_FEW = 500
"""With a find in so many bytes, or more of them, all lines of a block are looked up in one go."""


def scanner(structure: Iterable[str], wanted: Iterable[str], count: list[int]) -> Scan | None:
    """A pass that finds these literals, or None where there is no engine for it. `count[0]` grows by each find of a wanted one."""
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


def text_only(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Without NULs at the beginning: what is left of a log that was cut to nothing while its writer went on at its old place."""
    begun = False
    for chunk in chunks:
        text = chunk if begun else chunk.lstrip(b"\0")
        begun = begun or bool(text)
        if text:
            yield text


def is_utf8(data: bytes) -> bool:
    """Whether these whole lines are UTF-8: expressions that hold other characters than ASCII's know them so."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """(Bytes, whether they end a line): whole lines; a line of over 1 MiB (bars without newline) comes in pieces."""
    rest = b""
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        view = memoryview(chunk)
        if cut:
            yield b"".join((rest, view[:cut])), True
            rest = bytes(view[cut:])
        else:
            rest += chunk
        if len(rest) > LONGEST:
            cut = rest.rfind(b"\r", 0, len(rest) - 1) + 1 or len(rest)
            yield rest[:cut], False
            rest = rest[cut:]
    if rest:
        yield rest, False


class Found(NamedTuple):
    """What was found in a block: how many lines end in it; for each find where it ends (offset behind its last byte), its line's number
    in the block (from 0), where that line begins and where its newline stands (or would). All rising.
    """

    lines: int
    ends: list[int]
    numbers: list[int]
    starts: list[int]
    stops: list[int]


def locate_lines(data: bytes, ends: list[int]) -> Found:
    """The lines of some finds: of some thousands in a block few are looked at."""
    numpy = need("numpy", "fast")

    breaks = numpy.frombuffer(data, dtype=numpy.uint8) == _NEWLINE
    lines = int(numpy.count_nonzero(breaks))
    if len(ends) * _FEW > len(data):
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
    """A line without those of its progress bars that tell nothing: what stays is what was found, the bar before and after, the last bar.

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
        low = max(done, place - CUT // 2)
        first = max(low, data.rfind(b"\r", low, place) + 1)
        shown = data.rfind(b"%|", max(done, first - _SHORT), first)
        if shown >= 0:
            first = max(done, data.rfind(b"\r", done, shown) + 1, shown - 400)
        last = data.find(b"\r", place, stop)
        after = data.find(b"\r", last + 1, stop) if last >= 0 else -1
        upto = min(stop if after < 0 else after, place + CUT)
        parts.append(data[first:upto])
        done = upto + 1
    shown = data.rfind(b"%|", max(done, stop - _NEAR), stop) if done < stop else -1
    if shown >= 0:
        parts.append(data[max(done, data.rfind(b"\r", done, shown) + 1) : stop])
    return b"\r".join(parts)


def last_segment(data: bytes, start: int, stop: int, ends: list[int], number: int) -> int:
    """Where the text behind a line's last carriage return begins, if nothing but the clearing of bars was found before it; else -1."""
    place = data.rfind(b"\r", start, stop) + 1 or start
    while number < len(ends) and ends[number] <= place:
        if not data.endswith(_CLEARED, start, ends[number]):
            return -1
        number += 1
    return place if number < len(ends) and ends[number] <= stop else -1


def bars(data: bytes, start: int, stop: int) -> list[bytes]:
    """Of a stretch in which nothing was found: the last bar of the line with its first bar, and the last bar of all."""
    first = data.find(b"%|", start, min(stop, start + _NEAR))
    last = data.rfind(b"%|", max(start, stop - _NEAR), stop)
    if first >= 0:
        end = data.find(b"\n", first, min(stop, first + _NEAR))
        first = data.rfind(b"%|", first, stop if end < 0 else end)
    return [_segment(data, place, start, stop) for place in dict.fromkeys((first, last)) if place >= 0]


def _segment(data: bytes, place: int, low: int, high: int) -> bytes:
    """The bytes between carriage returns or newlines around `place`, a few hundred at most."""
    low, high = max(low, place - _WIDE), min(high, place + _WIDE)
    first = max(data.rfind(b"\r", low, place), data.rfind(b"\n", low, place)) + 1 or low
    last = data.find(b"\r", place, high)
    last = data.find(b"\n", place, high if last < 0 else last) if last < 0 or b"\n" in data[place:last] else last
    return data[first : high if last < 0 else last]
