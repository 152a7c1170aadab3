"""A pass with the rules' whole expressions instead of their literals, for logs in which many lines contain literals.

Hyperscan scans a thousand expressions about as fast as a thousand literals, but compiles them for half a second. Nearly every line that
they find is wanted. `STRUCTURE` adds the lines that are read in any case; its expressions are looser than those of the modules that read
them, and tests compare both ways.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.phases import MARKERS
from doctor.readers.console import facts, process_exits
from doctor.readers.console.scan import ALWAYS, Scan
from doctor.readers.console.superset import NoSuperset, superset
from doctor.support.cache import cache_path, write_cache
from doctor.support.decoding import unpack
from doctor.support.literal_search import LinePatterns, database, escaped
from doctor.support.optional import optional, package_folder

_RAISED = rb"(?:Error|Exception|Interrupt|Invalid|Exit|StopIteration)"
_SAID = _RAISED + rb"(?:\([\w.]{1,100}\))?(?::\s|\s*$)"
_ENDED = b"(?:" + b"|".join(word.encode() for word in process_exits.SIGNALS) + b")"
_PREFIX = (
    rb"^(?:[^\s]*[\]:|>)][ \t]*|\d\S*[ \t]+|\([^)\n]{1,200}\)[ \t]*|(?:std(?:out|err)|[FP]|ERROR)[ \t]+"
    rb"|[\w.-]+[ \t]+(?:logs:[ \t]|\|[ \t])|\[Rank[ \t])*\s*"
)
"""Prefixes of a line's own text: ranks, hosts, times, streams (lines.Prefixes). A word alone is text."""
_TAIL = 4096
"""Bytes at the end of a block in which its last marker is searched for first."""
_DOUBTFUL = 2
"""Expressions whose finds are checked again: `_SAID`, and `_ENDED` with everything that counts only at a line's beginning."""
STRUCTURE: tuple[bytes, ...] = (
    # tracebacks
    escaped(b"Traceback (most recent call last)"),
    escaped(b"During handling of the above exception"),
    escaped(b"The above exception was the direct cause"),
    rb"RemoteTraceback",
    rb'File "[^"\n]+", line \d',
    rb'\.py", line \d',
    rb"-> \[?\d",
    rb"(?:%\||\r)[^\n]*" + _RAISED,
    # ends
    escaped(b"Failures:"),
    escaped(b"Root Cause"),
    rb"failed \(exitcode: -?\d",
    rb"return code = -?\d",
    rb"srun: error: ",
    rb"(?:%\||\r|line \d+: +\d+ |\[\d\]\+? +(?:\d+ )?)[^\n]*" + _ENDED,
    rb"(?i:exit(?:ed)?(?: with)? (?:code|status)[ :=]{1,3}\d|return code[ :=]{1,3}\d)",
    # facts, printed models
    *(escaped(word.encode()) for word in (*facts.CONSTANT, *MARKERS)),
    rb"Config \{\s*$",
    # records
    rb"""['"](?:[\w/.-]*[lL]oss|rewards?|rewards/[\w/.-]*|train_runtime|eval_[\w/.-]*|current_steps)['"]\s*:""",
    rb"iteration +\d+/ *\d+ \|",
    rb"lm loss value: ",
    rb"(?i:loss(?:/train|/val)?['\"]?\s*[:=]\s*['\"]?[-+.\dni])",
)
"""Hyperscan's syntax, `^` and `$` at every line."""


def line_patterns(wanted: LinePatterns) -> Scan | None:
    """A pass that finds the lines of these expressions; None without Hyperscan or if it cannot compile one.

    Of the lines that only contain a marker (`LinePatterns.markers`), the last of each block is found.
    """
    made = _databases(wanted)
    if made is None:
        return None
    everything, first, markers = made
    weak = len(_markers(wanted))
    sure = weak + _DOUBTFUL
    found: list[int] = []
    doubtful: list[int] = []
    weakly: list[int] = []

    def hit(number: int, _start: int, end: int, _flags: int, _context: Any) -> None:
        (found if number >= sure else weakly if number < weak else doubtful).append(end)

    def scan(block: bytes) -> list[int]:
        found.clear()
        doubtful.clear()
        weakly.clear()
        everything.scan(block, match_event_handler=hit)
        if weakly:
            found.append(_last(markers, block))
        if doubtful:
            found.extend(_leading(first, block, doubtful))
        if weakly or doubtful:
            found.sort()
        return found

    return scan


def _ends(made: Any, data: bytes) -> list[int]:
    ends: list[int] = []
    made.scan(data, match_event_handler=lambda _number, _start, end, _flags, _context: ends.append(end))
    return ends


def _last(markers: Any, block: bytes) -> int:
    """The end of the last marker in a block that contains one."""
    for size in (_TAIL, 16 * _TAIL, len(block)):
        tail = block[-size:]
        if ends := _ends(markers, tail):
            return len(block) - len(tail) + ends[-1]
    return len(block)


def _leading(first: Any, block: bytes, doubtful: list[int]) -> list[int]:
    """The doubtful finds that are at the beginning of their line's own text."""
    lines: list[bytes] = []
    finds: list[list[int]] = []
    places: list[int] = []
    size, begun = 0, -1
    for end in doubtful:
        start = block.rfind(b"\n", 0, end) + 1
        if start != begun:
            stop = block.find(b"\n", end)
            begun = start
            lines.append(block[start : len(block) if stop < 0 else stop])
            places.append(size)
            finds.append([])
            size += len(lines[-1]) + 1
        finds[-1].append(end)
    yes = {bisect_right(places, end - 1) - 1 for end in _ends(first, b"\n".join(lines))}
    return [end for number in sorted(yes) for end in finds[number]]


def _markers(wanted: LinePatterns) -> list[bytes]:
    return [escaped(sign.encode()) for sign in wanted.markers if sign]


def _databases(wanted: LinePatterns) -> tuple[Any, Any, Any] | None:
    """Hyperscan's forms of all expressions (signs, doubtful ones, the rest), of `_beginnings`, and of the signs; kept for the next run.

    A form made for another processor is refused by Hyperscan (its error code), and made anew.
    """
    hyperscan = optional("hyperscan", "fast")
    if hyperscan is None or package_folder("numpy", "fast") is None:
        return None
    inputs = [getattr(hyperscan, "__version__", ""), sys.version, facts.EXPRESSIONS, wanted]
    code = (Path(__file__), Path(superset.__code__.co_filename), Path(process_exits.__file__), Path(facts.__file__))
    kept = cache_path("expressions", repr(inputs).encode(), *code)
    if kept is not None:
        try:
            loaded = [hyperscan.loadb(each, hyperscan.HS_MODE_BLOCK) for each in unpack(kept.read_bytes(), tuple[bytes, bytes, bytes])]
            for each in loaded:
                each.scratch = hyperscan.Scratch(each)
            return loaded[0], loaded[1], loaded[2]
        except (OSError, msgspec.MsgspecError, hyperscan.error):
            pass
    try:
        loosened = [superset(each) for each in (*facts.EXPRESSIONS, *wanted.expressions)]
        leading = list(dict.fromkeys(each.body for each in loosened if each.first))
        sure = dict.fromkeys((*STRUCTURE, *map(escaped, ALWAYS), *(each.body for each in loosened if not each.first)))
    except NoSuperset:
        return None
    markers = _markers(wanted)
    everything = database([*markers, _SAID, b"|".join((_ENDED, *leading)), *sure], lines=True, once=len(markers))
    first = database(_beginnings(leading), lines=True)
    weak = database(markers or [escaped(b"\0")])
    if everything is None or first is None or weak is None:
        return None
    if kept is not None:
        write_cache(kept, msgspec.msgpack.encode([hyperscan.dumpb(each) for each in (everything, first, weak)]))
    return everything, first, weak


def _beginnings(leading: Sequence[bytes]) -> list[bytes]:
    """Expressions that count only at the beginning of a line, after its prefixes or a bar.

    They are matched against lines with doubtful finds; matched against everything they would take most of the scan.
    """
    ended = b"(?:" + b"|".join((_ENDED, *leading)) + b")"
    return [_PREFIX + rb"[\w.]*" + _SAID, _PREFIX + ended, *(rb"(?:%\||\r)[^\n]*" + each for each in leading)]
