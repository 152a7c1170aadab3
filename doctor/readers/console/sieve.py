"""For logs in which many lines hold some rule's literal: one pass with the rules' whole expressions instead of their literals.

A thousand expressions cost Hyperscan about what a thousand literals do, but half a second to compile, and what they find is nearly always
wanted. Beside the rules' expressions stand those of the lines that are understood in any case (`STRUCTURE`); each is looser than what the
module that it is named after looks for, and tests hold both ways against each other.
"""

from __future__ import annotations

from bisect import insort
from typing import Any

from doctor.literals import Sieve
from doctor.readers.console import ends, facts
from doctor.readers.console.scan import ALWAYS, Scan, literal
from doctor.readers.console.superset import NoSuperset, superset

MANY = 8_000
"""So many lines are kept for their literals' sake before the expressions are compiled."""
_RAISED = rb"(?:Error|Exception|Interrupt|Invalid|Exit|StopIteration)"
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
    _PREFIX + rb"[\w.]*" + _RAISED + rb"(?:\([\w.]{1,100}\))?(?::\s|\s*$)",
    rb"(?:%\||\r)[^\n]*" + _RAISED,
    # ends
    literal(b"Failures:"),
    literal(b"Root Cause"),
    rb"failed \(exitcode: -?\d",
    rb"return code = -?\d",
    rb"srun: error: ",
    _PREFIX + _ENDED,
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


def sieve(wanted: Sieve) -> Scan | None:
    """A pass that finds the lines of these expressions, or None where there is no engine for it or an expression is beyond it.

    Of the lines that hold nothing but a sign (`Sieve.signs`) only the last of each block is found.
    """
    try:
        import hyperscan
    except ImportError:
        return None
    signs = [literal(sign.encode()) for sign in wanted.signs if sign]
    try:
        strong = [*STRUCTURE, *map(literal, ALWAYS), *map(superset, (*facts.EXPRESSIONS, *wanted.expressions))]
    except NoSuperset:
        return None
    expressions = [*signs, *dict.fromkeys(strong)]
    database = hyperscan.Database()
    try:
        flags = [hyperscan.HS_FLAG_MULTILINE] * len(expressions)
        database.compile(expressions=expressions, ids=list(range(len(expressions))), flags=flags)
    except hyperscan.error:
        return None
    found: list[int] = []
    latest = [0]
    weak = len(signs)

    def hit(number: int, _start: int, end: int, _flags: int, _context: Any) -> None:
        if number < weak:
            latest[0] = end
        else:
            found.append(end)

    def scan(block: bytes) -> list[int]:
        found.clear()
        latest[0] = 0
        database.scan(block, match_event_handler=hit)
        if latest[0]:
            insort(found, latest[0])
        return found

    return scan
