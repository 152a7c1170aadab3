"""For logs in which many lines hold some rule's literal: one pass with the rules' whole expressions instead of their literals.

A thousand expressions cost Hyperscan about what a thousand literals do, but half a second to compile, and what they find is nearly always
wanted. Beside the rules' expressions stand those of the lines that are understood in any case (`STRUCTURE`); each is looser than what the
module that it is named after looks for, and tests hold both ways against each other.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.literals import Sieve
from doctor.readers.console import ends, facts
from doctor.readers.console.scan import ALWAYS, Scan, literal
from doctor.readers.console.superset import NoSuperset, superset
from doctor.shipped import compiled, keep
from doctor.typed import unpack

MANY = 2_000
"""So many lines may hold a literal before the expressions are compiled."""
_RAISED = rb"(?:Error|Exception|Interrupt|Invalid|Exit|StopIteration)"
_SAID = _RAISED + rb"(?:\([\w.]{1,100}\))?(?::\s|\s*$)"
_ENDED = b"(?:" + b"|".join(word.encode() for word in ends.SIGNALS) + b")"
_PREFIX = (
    rb"^(?:[^\s]*[\]:|>)][ \t]*|\d\S*[ \t]+|\([^)\n]{1,200}\)[ \t]*|(?:std(?:out|err)|[FP]|ERROR)[ \t]+"
    rb"|[\w.-]+[ \t]+(?:logs:[ \t]|\|[ \t])|\[Rank[ \t])*\s*"
)
"""What can stand before a line's own text: ranks, hosts, times, streams (lines.Prefixes). A word alone is text."""
STRUCTURE: tuple[bytes, ...] = (
    # tracebacks
    literal(b"Traceback (most recent call last)"),
    literal(b"During handling of the above exception"),
    literal(b"The above exception was the direct cause"),
    rb"RemoteTraceback",
    rb'File "[^"\n]+", line \d',
    rb'\.py", line \d',
    rb"-> \[?\d",
    rb"(?:%\||\r)[^\n]*" + _RAISED,
    # ends
    literal(b"Failures:"),
    literal(b"Root Cause"),
    rb"failed \(exitcode: -?\d",
    rb"return code = -?\d",
    rb"srun: error: ",
    rb"(?:%\||\r|line \d+: +\d+ |\[\d\]\+? +(?:\d+ )?)[^\n]*" + _ENDED,
    rb"(?i:exit(?:ed)?(?: with)? (?:code|status)[ :=]{1,3}\d|return code[ :=]{1,3}\d)",
    # facts, printed models
    *(literal(word.encode()) for word in (*facts.CONSTANT, *facts.PHASES)),
    rb"Config \{\s*$",
    # records
    rb"""['"](?:[\w/.-]*[lL]oss|rewards?|rewards/[\w/.-]*|train_runtime|eval_[\w/.-]*|current_steps)['"]\s*:""",
    rb"(?i:loss(?:/train|/val)?['\"]?\s*[:=]\s*['\"]?[-+.\dni])",
)
"""Hyperscan's syntax, `^` and `$` at every line."""
_DOUBTFUL = (_SAID, _ENDED)
_FIRST = (_PREFIX + rb"[\w.]*" + _SAID, _PREFIX + _ENDED)
"""What counts at the beginning of a line only, behind ranks and times. Such a beginning is looked for in lines that hold the words: as
expressions over everything these two took most of the scan."""


def sieve(wanted: Sieve) -> Scan | None:
    """A pass that finds the lines of these expressions, or None where there is no engine for it or an expression is beyond it.

    Of the lines that hold nothing but a sign (`Sieve.signs`) only the last of each block is found.
    """
    made = _databases(wanted)
    if made is None:
        return None
    everything, first = made
    found: list[int] = []
    doubtful: list[int] = []
    latest = [0]
    weak = len(_signs(wanted))
    sure = weak + len(_DOUBTFUL)

    def hit(number: int, _start: int, end: int, _flags: int, _context: Any) -> None:
        if number < weak:
            latest[0] = end
        elif number < sure:
            doubtful.append(end)
        else:
            found.append(end)

    def leads(line: bytes) -> bool:
        told: list[int] = []
        first.scan(line, match_event_handler=lambda _number, _start, end, _flags, _context: told.append(end))
        return bool(told)

    def scan(block: bytes) -> list[int]:
        found.clear()
        doubtful.clear()
        latest[0] = 0
        everything.scan(block, match_event_handler=hit)
        more = [latest[0]] if latest[0] else []
        begun, yes = -1, False
        for end in doubtful:
            start = block.rfind(b"\n", 0, end) + 1
            if start != begun:
                stop = block.find(b"\n", end)
                begun, yes = start, leads(block[start : len(block) if stop < 0 else stop])
            if yes:
                more.append(end)
        if more:
            found.extend(more)
            found.sort()
        return found

    return scan


def _signs(wanted: Sieve) -> list[bytes]:
    return [literal(sign.encode()) for sign in wanted.signs if sign]


def _databases(wanted: Sieve) -> tuple[Any, Any] | None:
    """Hyperscan's forms of all expressions (signs, doubtful ones, the rest) and of `_FIRST`; kept for the next run.

    A form made for another processor is refused by Hyperscan (its error code), and made anew.
    """
    try:
        import hyperscan
    except ImportError:
        return None
    told = [getattr(hyperscan, "__version__", ""), sys.version, STRUCTURE, _DOUBTFUL, _FIRST, ALWAYS, facts.EXPRESSIONS, wanted]
    kept = compiled("expressions", repr(told).encode(), Path(superset.__code__.co_filename))
    if kept is not None:
        try:
            everything, first = (hyperscan.loadb(one, hyperscan.HS_MODE_BLOCK) for one in unpack(kept.read_bytes(), tuple[bytes, bytes]))
            everything.scratch, first.scratch = hyperscan.Scratch(everything), hyperscan.Scratch(first)
            return everything, first
        except (OSError, msgspec.MsgspecError, hyperscan.error):
            pass
    try:
        strong = [*STRUCTURE, *map(literal, ALWAYS), *map(superset, (*facts.EXPRESSIONS, *wanted.expressions))]
        everything, first = _compiled([*_signs(wanted), *_DOUBTFUL, *dict.fromkeys(strong)]), _compiled(_FIRST)
    except (NoSuperset, hyperscan.error):
        return None
    if kept is not None:
        keep(kept, msgspec.msgpack.encode((hyperscan.dumpb(everything), hyperscan.dumpb(first))))
    return everything, first


def _compiled(expressions: Sequence[bytes]) -> Any:
    """Raises hyperscan.error for what Hyperscan cannot take."""
    import hyperscan

    database = hyperscan.Database()
    flags = [hyperscan.HS_FLAG_MULTILINE] * len(expressions)
    database.compile(expressions=expressions, ids=list(range(len(expressions))), flags=flags)
    return database
