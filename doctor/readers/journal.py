"""lfdoctor.jsonl: the events that the live callback and the supervisor wrote."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.config import yaml_edit
from doctor.config.options import table
from doctor.core.events import MAX_STEP, ConfigSeen, Crash, Event, Fact, Frame, LogLine, ProcessEnd, Sample, Step, Where
from doctor.core.phases import PHASES
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.file import File
from doctor.readers.values import number, numbers, option_value
from doctor.support.decoding import convert, json_decoder

_CONFIG_LINES = (b'{"type":"Given"', b'{"type":"ConfigSeen"', b'{"type":"Fact"')
OF_THE_END = "lfdoctor-run.jsonl"
"""The journal of `lfdoctor run` itself: how the training's process ended."""
_OF_ONE_RUN = re.compile(r"lfdoctor(?:-rank\d+|-run)?(?:\.\d+)?\.jsonl")
"""Names of the journals of one run: of its ranks, of its supervisor, and what was rotated away."""
_MAX_LINE = 1 << 22
"""Bytes; the longest lines are configurations of some hundred KiB."""
_TYPE = b'"type"'
_MAX_FOREIGN = 10_000
"""Lines of a chunk, none of which has a type: no journal has them, a bomb of 500 kB has 40 million."""
_MAX_TEXT = 20_000
"""Characters of a line or message."""


def of_other_runs(paths: Sequence[Path]) -> list[Path]:
    """The journals that another run left beside a run's own, by their names. Where a folder has only such, all but the newest."""
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    out: list[Path] = []
    for inside in folders.values():
        foreign = sorted((path for path in inside if not _OF_ONE_RUN.fullmatch(path.name)), key=_changed)
        out += foreign if len(foreign) < len(inside) else foreign[:-1]
    return out


def _changed(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name


class Journal(ReaderBase):
    """A damaged line costs that line. Steps are read from rank 0 only (all ranks log the same), everything else from every rank."""

    kind = "journal"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".jsonl" and (path.name.startswith("lfdoctor") or head.startswith(b'{"type":"Session"'))

    def configs(self, file: File) -> Iterator[Event]:
        parser = Parser(file.name)
        for line, raw in enumerate(_lines(file), 1):
            if raw.startswith(_CONFIG_LINES):
                yield from (event for event in parser.line(raw, line) if isinstance(event, ConfigSeen | Fact))

    def read(self, file: File, context: Context) -> Iterator[Event]:
        parser = Parser(file.name)
        for line, raw in enumerate(_lines(file), 1):
            for event in parser.line(raw, line):
                if not isinstance(event, ConfigSeen):
                    file.source.records += 1
                    yield event
        if parser.broken:
            file.source.problem(f"{parser.broken} damaged lines: skipped")


class Parser:
    """Turns single lines into events; used by the reader and by the live monitor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.broken = 0
        self.rank: int | None = None
        self._attempt = -1

    def line(self, raw: bytes, line: int) -> list[Event]:
        """The events of one line; nothing for a damaged one."""
        raw = raw.strip(b" \t\r\0")
        if not raw:
            return []
        try:
            values = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken += 1
            return []
        if not isinstance(values, dict):
            self.broken += 1
            return []
        return list(self._events(values, Where(self.name, line)))

    def _events(self, values: dict[str, Any], where: Where) -> Iterator[Event]:
        kind = values.get("type")
        time, seconds = number(values.get("time")), number(values.get("seconds"))
        rank = values.get("rank", self.rank)
        rank = rank if type(rank) is int and 0 <= rank < 1 << 31 else None
        attempt = max(self._attempt, 0)
        if kind == "Session":
            self.rank = rank
            self._attempt += 1
        elif kind == "Step":
            yield from self._step(values, where, time, seconds)
        elif kind == "Sample":
            yield Sample(where=where, rank=rank, attempt=attempt, time=time, metrics=_figures(values), seconds=seconds)
        elif kind == "Fact" and isinstance(values.get("name"), str):
            if not rank:
                yield Fact(where=where, name=values["name"], value=values.get("value"), time=time)
        elif kind == "ConfigSeen" and not rank:
            yield from _effective(values, where)
        elif kind == "Given" and not rank:
            yield from _given(values, where)
        elif kind == "Crash":
            yield _crash(values, where, rank, attempt, time)
        elif kind == "ProcessEnd":
            code, signal = (raw if type(raw) is int else None for raw in (values.get("code"), values.get("signal")))
            yield ProcessEnd(where=where, rank=rank, attempt=attempt, time=time, reporter="supervisor", code=code, signal=signal)
        elif kind == "LogLine":
            yield LogLine(where=where, rank=rank, attempt=attempt, time=time, text=str(values.get("text"))[:_MAX_TEXT])

    def _step(self, values: dict[str, Any], where: Where, time: float | None, seconds: float | None) -> Iterator[Step]:
        step = values.get("step")
        if self.rank or type(step) is not int or not 0 <= step < MAX_STEP:
            return
        place = Where(where.file, where.line, step)
        yield Step(where=place, step=step, metrics=_figures(values), seconds=seconds, time=time, history=values.get("history") is True)


_decode = json_decoder(Any).decode


def _figures(values: dict[str, Any]) -> dict[str, float]:
    metrics = values.get("metrics")
    return numbers(metrics) if isinstance(metrics, dict) else {}


def _effective(values: dict[str, Any], where: Where) -> Iterator[Event]:
    """The values that the program used, defaults included: trusted like training_args.bin, not like the user's YAML."""
    given = values.get("values")
    options = {key: value for key, value in given.items() if key in table()} if isinstance(given, dict) else {}
    if options:
        yield ConfigSeen(where=where, values=options, origin="training_args")


def _given(values: dict[str, Any], where: Where) -> Iterator[Event]:
    """The user's own YAML and the key=value arguments that the program was started with."""
    text, words = values.get("yaml"), values.get("argv")
    options: dict[str, Any] = {}
    if isinstance(text, str):
        try:
            options.update(yaml_edit.load(text))
        except yaml_edit.NotReadable:
            options = {}
    for word in words if isinstance(words, list) else ():
        key, equals, value = str(word).partition("=")
        if equals and key.isidentifier():
            options[key] = option_value(value)
    if options:
        yield ConfigSeen(where=where, values=options, origin="journal")
    if isinstance(words, list):
        yield Fact(where=where, name="command", value=shlex.join(map(str, words)))


def _crash(values: dict[str, Any], where: Where, rank: int | None, attempt: int, time: float | None) -> Crash:
    frames = values.get("frames")
    phase, chain = values.get("phase"), values.get("chain")
    return Crash(
        where=where,
        rank=rank,
        attempt=attempt,
        time=time,
        exception=str(values.get("exception") or ""),
        message=str(values.get("message") or "")[:_MAX_TEXT],
        frames=tuple(frame for raw in frames if (frame := _frame(raw)) is not None) if isinstance(frames, list) else (),
        phase=phase if phase in PHASES else None,
        chain=chain if type(chain) is int and chain >= 0 else 0,
    )


def _frame(raw: Any) -> Frame | None:
    try:
        return convert(raw, Frame)
    except msgspec.ValidationError:
        return None


def _lines(file: File) -> Iterator[bytes]:
    """Lines in bounded memory; a longer line than `_MAX_LINE` is cut (and then no JSON). A chunk of foreign lines ends the reading."""
    rest = b""
    for chunk in file.chunks():
        if chunk.count(b"\n") > _MAX_FOREIGN and _TYPE not in chunk:
            file.source.problem(f"{_MAX_FOREIGN} lines in a row that are no journal's: not read further")
            return
        parts = (rest + chunk).split(b"\n")
        rest = parts.pop()[:_MAX_LINE]
        yield from parts
    if rest:
        yield rest
