"""What lines of a console need before they can be interpreted: removal of colours, progress bars and rank prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from doctor.readers.file import decode

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
_MAX_HOSTS = 1000


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
        label = _LABEL.search(text[max(place, stop - _MAX_LABEL) : stop]) if stop > place and text[stop - 1] == ":" else None
        yield _Bar(stop - len(label[0]) if label else stop, found.end(), label[0] if label else "", found[1], found[2])
        place = found.end()


class Unglued(NamedTuple):
    """A text without its bars: the `pieces` between them; (done, total) of the last bar without a label; label and whole text of the
    last bar that has one ("Loading checkpoint shards:  20%|..| 3/15 [...]").
    """

    pieces: list[str]
    step: tuple[int, int] | None = None
    labelled: tuple[str, str] | None = None


def unglue(text: str) -> Unglued:
    """The text, and what its progress bars say."""
    if "%|" not in text and "[0" not in text and "it/s]" not in text:
        return Unglued([text])
    step, labelled, place = None, None, 0
    pieces = []
    for bar in _bars(text):
        pieces.append(text[place : bar.start])
        place = bar.end
        if bar.label:
            labelled = bar
        elif bar.done.isdecimal() and bar.total.isdecimal():
            step = (int(bar.done), int(bar.total))
    pieces.append(text[place:])
    if place == 0 or "it/s]" in pieces[-1] or "examples/s]" in pieces[-1]:
        pieces[-1:] = _COUNT.split(pieces[-1])
    shown = (labelled.label.strip(), text[labelled.start : labelled.end].strip()) if labelled else None
    return Unglued([piece for piece in pieces if piece.strip()], step, shown)


def plain_bar(raw: bytes) -> tuple[int, int] | None:
    """(done, total) of bytes that are one progress bar without a label, and nothing else."""
    plain = _PLAIN_BAR.fullmatch(raw)
    return (int(plain[1]), int(plain[2])) if plain else None


def bar_step(raw: bytes) -> tuple[int, int] | None:
    """(done, total) of the last progress bar without a label in these bytes. Bars glued to each other end with a bracket."""
    last = raw[raw.rfind(b"]", 0, raw.rfind(b"%|")) + 1 :] if len(raw) <= MAX_TEXT else raw
    return plain_bar(last) or unglue(clean(decode(raw))).step


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
            if found is not None and not (found["compose"] and not self._is_host(found["compose"], text, found.end())):
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
            if hosted and self._is_host(hosted[1], text, hosted.end()):
                lane, text = lane + hosted[1], text[hosted.end() :]
                continue
            break
        return lane, rank, text

    def _is_host(self, name: str, text: str, end: int) -> bool:
        """Whether the name, which ends here, is one that precedes log lines: once it did for certain."""
        if name not in self._hosts and len(self._hosts) < _MAX_HOSTS and _CERTAIN.match(text, end):
            self._hosts.add(name)
        return name in self._hosts
