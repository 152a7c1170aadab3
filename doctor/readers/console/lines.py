"""What lines of a console need before they can be interpreted: a filter, and removal of colours, progress bars and rank prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from doctor.readers.file import decode
from doctor.support.literal_search import MultiSearch

MAX_LINE = 1 << 20
"""Bytes; longer lines come in pieces."""
MAX_TEXT = 20_000
"""Characters; longer texts are cut (no rule and no record needs more)."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\-_])")
_BAR = re.compile(
    r"\d{1,3}%\|[^|\r\n]{0,400}\|\s{0,20}([\d.]{1,18}[kMGT]?)\s{0,20}/\s{0,20}([\d.]{1,18}[kMGT]?)\s{0,20}\[[^\]\r\n]{0,100}\]"
)
_LABEL = re.compile(r"[^|%\r\n]{0,200}:\Z")
_MAX_LABEL = 201
"""Characters of a bar's label with its colon."""
_PLAIN_BAR = re.compile(rb"\s*\d{1,3}%\|[^|\r\n\x1b]{0,400}\| (\d{1,18})/(\d{1,18}) \[[^\]\r\n\x1b]{0,100}\]")
_COUNT = re.compile(r"(?:[\w ()=./-]{1,100}: )?\d{1,18}(?: examples|it|B)?\s?\[\d\d:\d\d[^\]\r\n]{0,60}(?:it/s|s/it|examples/s|B/s)\]")
_PREFIX = re.compile(
    r"""\[(?:rank|default|Rank\ )(?P<rank>\d{1,5})\]:?(?:\s|(?=\[)|(?<=:))
    |\[\d+,(?P<mpi>\d{1,5})\]<std(?:err|out)>:\s?
    |\((?P<ray>[\w.()-]+)(?:\ rank=(?P<ray_rank>\d+))?,?\ (?:pid|ip)=[^)]{1,60}\)\s?
    |(?P<std>stderr|stdout):\s
    |(?P<stamp>\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)|\ \d\d:\d\d:\d\d(?:\.\d+)?:(?=\ \[rank)))
     \s(?:std(?:out|err)\s[FP]\s)?
    |(?P<vllm>ERROR\ \d\d-\d\d\ \d\d:\d\d:\d\d\ \[?[\w./]{1,80}:\d{1,6}\]\s?)
    |(?P<pod>[\w.-]{1,80}\ logs:\s)
    |(?P<compose>[\w.-]{1,60})\s+\|\s""",
    re.X,
)
_NUMBERED = re.compile(r"\s{0,6}(\d{1,5}): ")
_HOSTED = re.compile(r"([A-Za-z][\w.-]{0,60}): ")
_CERTAIN = re.compile(r'(?:\[rank\d+\]:|Traceback \(most recent|\[(?:INFO|WARNING|ERROR)\||\{\'loss\'|  File "|\s*\d+%\|)')
_DIGITS = b"0123456789"
_MAX_SHAPES = 20_000
"""Shapes of lines whose result is remembered."""
_MAX_SHAPE = 1000
"""Bytes of a shape that is remembered."""
_MAX_HOSTS = 1000


class LineFilter:
    """Decides by a line's shape (its bytes without digits) whether anybody may want it. Shapes repeat, so most lines cost one look-up.

    A text that contains a literal also contains it after digits are removed from both, so no wanted line is lost. Literals with digits
    are then searched for in the line itself.
    """

    STRUCTURE, WANTED, _DOUBTFUL = 1, 2, 4

    def __init__(self, structure: Iterable[str], wanted: Iterable[str] | None) -> None:
        masks: dict[bytes, int] = {}
        self._exact: list[bytes] = []
        for words, usual in ((structure, self.STRUCTURE), (wanted or (), self.WANTED)):
            for word in words:
                stripped = word.encode().translate(None, _DIGITS)
                doubtful = usual == self.WANTED and word.isascii() and len(stripped) < len(word)
                masks[stripped] = masks.get(stripped, 0) | (self._DOUBTFUL if doubtful else usual)
                if doubtful:
                    self._exact.append(word.encode())
        self._always = (self.WANTED if wanted is None else 0) | masks.pop(b"", 0)
        self._masks = masks
        self._literals = MultiSearch(masks)
        self._shapes: dict[bytes, int] = {}

    def __call__(self, raw: bytes) -> int:
        """0, or the sum of STRUCTURE (it may be part of what is always read) and WANTED (it may contain a literal)."""
        shape = raw.translate(None, _DIGITS)
        known = self._shapes.get(shape)
        if known is None:
            known = self._search(shape)
            if len(shape) < _MAX_SHAPE:
                if len(self._shapes) >= _MAX_SHAPES:
                    self._shapes.clear()
                self._shapes[shape] = known
        if known & (self.WANTED | self._DOUBTFUL) == self._DOUBTFUL and any(literal in raw for literal in self._exact):
            return known | self.WANTED
        return known & ~self._DOUBTFUL

    def _search(self, shape: bytes) -> int:
        found = self._always
        for literal in self._literals.find(shape):
            found |= self._masks[literal]
        return found


def clean(text: str) -> str:
    """Without colours and other control sequences, cut to `MAX_TEXT` characters."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return (text.replace("\0", "") if "\0" in text else text)[:MAX_TEXT]


class _Bar(NamedTuple):
    """A progress bar in a text, with its label and the blanks before it: `Saving:  40%|... | 2/5 [00:01<00:02, 1.2it/s]`."""

    start: int
    end: int
    label: str
    done: str
    total: str


def _bars(text: str) -> Iterator[_Bar]:
    """Bars from left to right. The label is searched for backwards from the bar: forwards takes quadratic time on long lines."""
    place = 0
    for found in _BAR.finditer(text):
        stop = found.start()
        while stop > place and text[stop - 1].isspace():
            stop -= 1
        label = _LABEL.search(text[max(place, stop - _MAX_LABEL) : stop])
        yield _Bar(stop - len(label[0]) if label else stop, found.end(), label[0] if label else "", found[1], found[2])
        place = found.end()


def unglue(text: str) -> tuple[list[str], tuple[int, int] | None]:
    """The texts between progress bars, and the last bar's (done, total) if it has no label."""
    if "%|" not in text and "[0" not in text and "it/s]" not in text:
        return [text], None
    last = None
    pieces, place = [], 0
    for bar in _bars(text):
        pieces.append(text[place : bar.start])
        place = bar.end
        if not bar.label and bar.done.isdecimal() and bar.total.isdecimal():
            last = (int(bar.done), int(bar.total))
    pieces.append(text[place:])
    if place == 0 or "it/s]" in pieces[-1] or "examples/s]" in pieces[-1]:
        pieces[-1:] = _COUNT.split(pieces[-1])
    return [piece for piece in pieces if piece.strip()], last


def bar_step(raw: bytes) -> tuple[int, int] | None:
    """(done, total) of the last progress bar without a label in these bytes."""
    return plain_bar(raw) or unglue(clean(decode(raw)))[1]


def plain_bar(raw: bytes) -> tuple[int, int] | None:
    """(done, total) of bytes that are one progress bar without a label, and nothing else."""
    plain = _PLAIN_BAR.fullmatch(raw)
    return (int(plain[1]), int(plain[2])) if plain else None


def labelled_bar(text: str) -> tuple[str, str] | None:
    """Label and whole text of the last progress bar that has a label ("Loading checkpoint shards:  20%|..| 3/15 [...]")."""
    last = None
    for bar in _bars(text):
        if bar.label:
            last = (bar.label.strip(), text[bar.start : bar.end].strip())
    return last


class Prefixes:
    """Removes rank and host prefixes; `0: ` and `node1: ` only after they preceded something that is a log line for certain."""

    def __init__(self) -> None:
        self._hosts: set[str] = set()
        self._numbered = False

    def split(self, text: str) -> tuple[str, int | None, str]:
        """(lane, rank, rest of the line)."""
        lane, rank = "", None
        for _ in range(3):
            found = _PREFIX.match(text)
            if found is not None and not (found["compose"] and not self._compose(found["compose"], text[found.end() :])):
                lane += found[0].strip() if not found["stamp"] else ""
                number = found["rank"] or found["mpi"] or found["ray_rank"]
                rank = int(number) if number else rank
                text = text[found.end() :]
                continue
            numbered = _NUMBERED.match(text)
            if numbered and (self._numbered or _CERTAIN.match(text, numbered.end())):
                self._numbered = True
                lane, rank, text = lane + numbered[1], int(numbered[1]), text[numbered.end() :]
                continue
            hosted = _HOSTED.match(text)
            if hosted and (hosted[1] in self._hosts or self._host(hosted, text)):
                lane, text = lane + hosted[1], text[hosted.end() :]
                continue
            break
        return lane, rank, text

    def _compose(self, name: str, rest: str) -> bool:
        if name not in self._hosts and len(self._hosts) < _MAX_HOSTS and _CERTAIN.match(rest):
            self._hosts.add(name)
        return name in self._hosts

    def _host(self, hosted: re.Match[str], text: str) -> bool:
        if not _CERTAIN.match(text, hosted.end()) or len(self._hosts) >= _MAX_HOSTS:
            return False
        self._hosts.add(hosted[1])
        return True
