"""`lfdoctor-stacks-rank1.txt`: the stack of a rank that stopped logging, written by faulthandler; the fact stands.rank1.

Format: Modules/faulthandler.c and Python/traceback.c of CPython 3.11 to 3.14, below lines of our own (doctor/live/trainer/stacks.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.file import File
from doctor.support.lazy_regex import lazy_compile

_MAX_BYTES = 16 << 20
_MAX_FRAMES = 40
_ASKED = lazy_compile(
    r"lfdoctor asks: rank (?P<rank>\d{1,9}) pid (?P<pid>\d{1,9}) step (?P<step>\d{1,18}) silent (?P<silent>\d{1,9})"
    r" time (?P<time>\d{1,12})(?: thread 0x(?P<thread>[0-9a-f]{1,16}))?(?P<worker> worker)?"
)
_WAITS = lazy_compile(
    r"lfdoctor waits: rank \d{1,9} pid (?P<pid>\d{1,9}) (?P<kind>exists|flock|blocked) age (?P<age>\d{1,12}) holder (?P<holder>\d{1,9})"
    r" (?P<name>\S{1,64}) (?P<path>.{1,4096})"
)
_LOCK = lazy_compile(r"lfdoctor lock: rank \d{1,9} pid (?P<pid>\d{1,9}) (?P<kind>exists|flock) (?P<path>.{1,4096})")
_AT_A_LOCK = lazy_compile(r"[/\\]torch[/\\]utils[/\\]file_baton\.py:|[/\\]filelock[/\\]")
_AT_A_LOCK_WITHIN = 6
"""Innermost frames; see doctor/live/trainer/lock_watch.py."""
_LISTENS = lazy_compile(r"lfdoctor listens: rank (\d{1,9}) ")
_THREAD = lazy_compile(r"(?:Current thread|Thread) 0x(?P<thread>[0-9a-f]{1,16})\b.*\(most recent call first\):")
_FRAME = lazy_compile(r'  File "(?P<file>[^"]*)", line (?P<line>\d{1,9}|\?\?\?) in (?P<function>.+)')


class Stacks(ReaderBase):
    """The last stack of the training thread: the thread that our line names, else the process's first thread (printed last)."""

    kind = "stacks"

    def claims(self, path: Path, head: bytes) -> bool:
        return (
            path.suffix == ".txt" and path.name.startswith("lfdoctor-stacks") and (b"lfdoctor listens" in head or b"lfdoctor asks" in head)
        )

    def configs(self, file: File) -> Iterator[Event]:
        asked: re.Match[str] | None = None
        line_asked, threads = 0, dict[str, list[str]]()
        frames: list[str] = []
        facts: dict[int, Fact] = {}
        locks = dict[str, dict[str, Any]]()
        for number, line in enumerate([*(file.text(_MAX_BYTES) or "").splitlines(), "lfdoctor ends"], 1):
            if found := _WAITS.match(line) or _LOCK.match(line):  # the latter in the midst of stacks, by another thread
                locks[found["pid"]] = found.groupdict()
            elif line.startswith("lfdoctor "):
                if asked is not None and (fact := _fact(file, asked, line_asked, threads, locks)) is not None:
                    rank = int(asked["rank"])
                    if not asked["worker"]:
                        facts[rank] = fact
                    elif rank in facts:
                        facts[rank] = _with_worker(facts[rank], fact)
                    file.source.records += 1
                asked, line_asked, threads = _ASKED.match(line), number, {}
                if found := _LISTENS.match(line):  # a new process: earlier stacks are of another run
                    facts.pop(int(found[1]), None)
            elif found := _THREAD.match(line):
                frames = threads[found["thread"].lstrip("0")] = []
            elif line.strip() == "...":  # more threads than faulthandler prints
                threads.pop("", None)
                threads[""] = frames = []
            elif (found := _FRAME.match(line)) and len(frames) < _MAX_FRAMES:
                frames.append(f"{found['file']}:{found['line']} {found['function']}"[:500])
        yield from facts.values()


def _fact(file: File, asked: re.Match[str], line: int, threads: dict[str, list[str]], locks: dict[str, dict[str, Any]]) -> Fact | None:
    frames = threads.get((asked["thread"] or "-").lstrip("0")) or next(reversed(threads.values()), None)
    if not frames:
        return None
    value: dict[str, Any] = {"frames": frames, "pid": int(asked["pid"]), "step": int(asked["step"]), "silent_seconds": int(asked["silent"])}
    lock = locks.get(asked["pid"])
    if lock is not None and lock["kind"] == "blocked":
        del locks[asked["pid"]]  # known for this moment only
    if lock is not None and (lock["kind"] == "blocked" or any(map(_AT_A_LOCK.search, frames[:_AT_A_LOCK_WITHIN]))):
        value["lock"] = {"path": lock["path"], "age_seconds": int(lock.get("age", 0)), "holder": int(lock.get("holder", 0))}
        value["lock"] |= {"holder_name": lock["name"]} if lock.get("name", "-") != "-" else {}
    return Fact(where=file.where(line), name=f"stands.rank{asked['rank']}", value=value, time=float(asked["time"]))


def _with_worker(of: Fact, worker: Fact) -> Fact:
    """The rank's fact with the stack of a process that it has started."""
    workers = [*of.value.get("workers", []), {"pid": worker.value["pid"], "frames": worker.value["frames"]}]
    return msgspec.structs.replace(of, value={**of.value, "workers": workers})
