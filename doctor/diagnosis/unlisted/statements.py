"""Lines outside tracebacks that state an error: the last of a log, read again when nothing else says why a run ended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from doctor.core.events import Where
from doctor.readers.console.line_head import level
from doctor.support.files import end_of_file, file_size
from doctor.support.pasted_text import restored

_BYTES = 96 << 10
"""Bytes from the end of a log that are searched: a few hundred lines."""
_MOST = 60
"""Lines that are considered."""
_EXCERPT = 5
"""Lines, apart from their figures, that a log has at most for each of them to have been chosen by a person."""
_LONGEST = 2_000
_ERROR = re.compile(
    r"error|exception|fatal|\bERR\b|^argument -|fail|cannot|can.t |couldn.t|refused|denied|time[d ]?-?out|no available|insufficient|"
    r"exceeded|not (?:found|enough|supported|available|compatible|installed)|does(?: not|n.t) |unsupported|no paths|invalid|duplicate|"
    r"out of memory|\boom\b|poll for socket|requires|abort|terminat|core dumped|No module named|"
    r"^>?\s*assert |(?:grad_?norm|loss)\W{0,4}(?:nan|inf)\b|undefined symbol|what\(\):|报错|出错|失败|错误|异常|오류|에러|실패|unable to|"
    r"StopIteration|unexpected keyword|died|no longer|must (?:match|be)|ran into|mismatch|No such file",
    re.IGNORECASE,
)
"""Words of which one stands in nearly every line that states an error."""
_TOLD = re.compile(
    r"\b(?:error|exception)s?[_ ](?:bad|rate|count|handling|reporting|file)|\berror_file\b|\berrors? ?[:=] ?(?:0|None|null)\b|"
    r"^\s*(?:File |at |raise |warnings\.warn)|Warning\b|\bwarn(?:ing)?\b|deprecat|"
    r"\b(?:error|exception) (?:was )?(?:caught|ignored)\b|\bfall(?:ing|s)? back\b|\bretrying\b",
    re.IGNORECASE,
)
"""Lines with those words that state no error: counts, source code, warnings, exceptions that the program itself caught."""
_GIVEN = re.compile(
    r"^\W*(?:\w+=\S|(?:export|pip|cd|df|git|torchrun|deepspeed|accelerate|llamafactory-cli|swift|python\d?) |frame #\d)|[(,=]$|^[\w.]+ = "
)
"""Commands, assignments, cut source lines and frames of a C++ library: they state nothing."""
_SETTINGS = re.compile(r"\{(?!.*\b(?:loss|grad_norm)\b)\W*['\"]?\w+['\"]?: (?:.*?['\"]\w+['\"]: ){3}.*")
"""A printed configuration: its keys and values (`'truncation': 'error'`) state nothing. The record of a step does."""
_WORDS = 3
"""Words of a line that says something."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


_COMMAND = re.compile(
    r"(?:\b(?:python[\d.]*|torchrun|deepspeed|accelerate|llamafactory-cli|swift|axolotl)\b|\.py\b)[^-:]*(?P<options>(?<=\W)--?[A-Za-z])"
)
"""A command that a line repeats (a launcher's echo, a shell's line on a killed program): its options state nothing."""


def statements(files: Iterable[str]) -> Iterator[tuple[Where, str]]:
    """The lines near the end of each file that state an error, in their order.

    DEBUG, INFO and WARNING lines do not, unless the file is an excerpt of a few lines: somebody pasted the warning for what it says. There
    every sentence counts, also one without a word of failure.
    """
    for file in dict.fromkeys(filter(None, files)):
        yield from _of_file(Path(file))


def _states_an_error(text: str, *, excerpt: bool) -> bool:
    said, told = level(text), _SETTINGS.sub("", text)
    if not _ERROR.search(told) and not (excerpt and said is None and len(told.split()) >= _WORDS and not _GIVEN.search(text)):
        return False
    if said == "WARNING":
        return excerpt
    return said in (None, "ERROR", "CRITICAL", "FATAL") and not _TOLD.search(text)


def _of_file(path: Path) -> Iterator[tuple[Where, str]]:
    try:
        data = end_of_file(path, _BYTES)
        number = _lines_before(path, file_size(path) - _BYTES)
    except OSError:
        return
    if b"\0" in data[:4096]:
        return
    found, raws = 0, data.split(b"\n")
    excerpt = _distinct(raws) <= _EXCERPT
    for offset, raw in enumerate(raws):
        text = restored(_ANSI.sub("", raw.rsplit(b"\r", 1)[-1][:_LONGEST].decode("utf-8", "replace"))).strip()
        if found < _MOST and _states_an_error(text, excerpt=excerpt):
            found += 1
            yield Where(str(path), number + offset + 1 if number is not None else None), _without_command(text)


def _distinct(raws: Sequence[bytes]) -> int:
    """Lines that hold something; those that differ in their figures alone, such as the same warning of each sample, count as one."""
    filled = [raw for raw in raws if raw.strip()]
    return len({re.sub(rb"\d+", b"", raw) for raw in filled}) + len(filled) - len(set(filled))


def _without_command(text: str) -> str:
    """The line up to the options of a command that it repeats."""
    found = _COMMAND.search(text)
    return text[: found.start("options")] if found else text


def _lines_before(path: Path, end: int) -> int | None:
    """Line ends before a byte; None for a file too large to count them again."""
    if end <= 0:
        return 0
    if end > 64 << 20:
        return None
    with path.open("rb") as file:
        return file.read(end).count(b"\n")
