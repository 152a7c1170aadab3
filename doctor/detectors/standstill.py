"""`standstill`: find the rank the others wait for, from stack dumps of a hung run."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from doctor.core.events import Event, Fact
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match
from doctor.support.lazy_regex import lazy_compile

_NAME = lazy_compile(r"stands\.rank(\d{1,9})")
"""Facts of the live supervisor, a stack dump per rank."""

_FRAME = lazy_compile(r"(?P<file>.*):(?P<line>\d+|\?\?\?) (?P<function>.+)")
"""A frame in those dumps: `file:line function`."""

_PROCESS_BEGINS = lazy_compile(r"[/\\]multiprocess(?:ing)?[/\\]process\.py:")
_WAITS_WITHIN = 20
"""Innermost frames in which a wait for a worker stands: those of a queue's connection, a tensor's file descriptor, the loader's."""

Dump = dict[str, Any]


class Standstill(DetectorBase):
    """Match if the run did not continue after the dump.

    - `waits`: regular expressions of frames (`file:line function`) in which a rank waits for others, within the `depth` innermost.
    - `outside`: regular expressions of library frames; `place` is the innermost other frame.
    - `libraries`: those of whole packages. If every rank waits in a collective, the one that code outside of these called is the odd one.
    - `for_workers`: those in which a rank waits for a process that it has started. Where no other code stands further in, the place of
      that process is told.

    Facts: `asked`, `waiting` (numbers of ranks); `stuck`, `stuck_rank` (ranks that do not wait like the others, and the first of them;
    absent if none differs); `place`, `stuck_in` of that rank; `meeting` (where the others wait); `silent_seconds`, `after_step`. `worker`
    (process id) if the place is that of a process the rank has started. Where ranks wait for a lock file: `lock`, `lock_ranks`, and
    `lock_holder` (another process) or `lock_minutes` (its age, if it is older than the run and no system lock).
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Fact,)
    facts: tuple[str, ...] = (
        "asked", "waiting", "stuck_rank", "stuck", "place", "stuck_in", "meeting", "silent_seconds", "after_step",
        "worker", "lock", "lock_ranks", "lock_holder", "lock_minutes",
    )  # fmt: skip

    def __init__(
        self, waits: Sequence[str], outside: Sequence[str], libraries: Sequence[str], for_workers: Sequence[str], depth: int
    ) -> None:
        if any(isinstance(one, str) for one in (waits, outside, libraries, for_workers)) or not waits:
            raise ValueError("waits, outside, libraries and for_workers are lists, and waits is not empty")
        self.waits, self.outside = tuple(map(lazy_compile, waits)), tuple(map(lazy_compile, outside))
        self.libraries, self.for_workers = tuple(map(lazy_compile, libraries)), tuple(map(lazy_compile, for_workers))
        self.depth = depth

    def finish(self, run: Run) -> Iterator[Match]:
        dumps = {int(found[1]): value for name, value in run.facts.items() if (found := _NAME.fullmatch(name)) and _is_dump(value)}
        ranks = {rank: value for rank, value in sorted(dumps.items()) if (run.last_step or 0) <= value["step"]}
        if not ranks or run.completed:
            return
        pids = {value["pid"] for value in ranks.values() if "pid" in value}
        waiting = [rank for rank, value in ranks.items() if self._waits(value["frames"]) or _lock(value).get("holder", 0) in pids]
        stuck = [rank for rank in ranks if rank not in waiting] if waiting else _outlier(ranks)
        if not stuck and len(ranks) > 1:
            stuck = self._odd_path(ranks)
        first = stuck[0] if stuck else min(ranks)
        others = [rank for rank in ranks if rank not in stuck]
        facts: dict[str, Any] = {
            "asked": len(ranks), "waiting": len(waiting), "silent_seconds": max(value["silent_seconds"] for value in ranks.values()),
            "after_step": max(value["step"] for value in ranks.values()), **self._place(ranks[first]),
            **_lock_facts(ranks, stuck or others),
        }  # fmt: skip
        if stuck:
            facts |= {"stuck": ", ".join(map(str, stuck)), "stuck_rank": first}
        meetings = [_shown(self._own(ranks[rank]["frames"])) for rank in others if rank != first]
        if meetings:
            facts["meeting"] = next((place for place in meetings if place != facts["place"]), meetings[0])
        evidence = [Evidence(run.fact_where[f"stands.rank{rank}"], _quoted(rank, ranks[rank])) for rank in [*stuck, *others][:8]]
        yield Match(evidence=tuple(evidence), facts=facts, rank=first if stuck else None)

    def _waits(self, frames: list[str]) -> bool:
        return any(pattern.search(frame) for frame in frames[: self.depth] for pattern in self.waits)

    def _odd_path(self, ranks: dict[int, Dump]) -> list[int]:
        """The ranks that came to where they wait by a way of their own: through the user's code, through a callback, or as a minority."""
        paths = {rank: [_without_line(frame) for frame in reversed(value["frames"])] for rank, value in ranks.items()}
        shared = 0
        while len({path[shared] if shared < len(path) else None for path in paths.values()}) == 1 and shared < min(
            map(len, paths.values())
        ):
            shared += 1
        own = {rank: path[shared:] for rank, path in paths.items()}
        for is_odd in (self._is_users, lambda frame: frame.endswith("trainer_callback.py call_event")):
            odd = [rank for rank, path in own.items() if any(map(is_odd, path))]
            if 0 < len(odd) < len(ranks):
                return odd
        ways = Counter(map(tuple, own.values()))
        (_, most), *rest = ways.most_common()
        return [rank for rank, path in own.items() if ways[tuple(path)] < most] if rest and most > len(ranks) / 2 else []

    def _is_users(self, frame: str) -> bool:
        return not any(pattern.search(frame) for pattern in (*self.libraries, *self.outside))

    def _own(self, frames: list[str]) -> str:
        """The innermost frame that is not outside."""
        return next((frame for frame in frames if not self._is_outside(frame)), frames[0])

    def _place(self, value: Dump) -> dict[str, Any]:
        """Where a rank stands; where the process stands that it waits for, if it waits for one that it has started."""
        frames = value["frames"]
        wait = self._wait_for_worker(frames)
        if wait is None:
            return {"place": _shown(self._own(frames)), "stuck_in": _shown(frames[0])}
        # below the start of its process are the frames of the rank that it was forked from
        inner = [(worker["pid"], [*_until(worker["frames"], _PROCESS_BEGINS)]) for worker in value.get("workers") or []]
        for is_wanted in (self._is_users, lambda frame: not self._is_outside(frame)):
            for pid, own in inner:
                place = next(filter(is_wanted, own), None)
                if place is not None:
                    return {"place": _shown(place), "stuck_in": _shown(own[0]), "worker": pid}
        return {"place": _shown(wait), "stuck_in": _shown(frames[0])}

    def _wait_for_worker(self, frames: list[str]) -> str | None:
        """The frame in which a rank waits for a process that it has started; None if code outside of the libraries stands further in."""
        for frame in frames[:_WAITS_WITHIN]:
            if any(pattern.search(frame) for pattern in self.for_workers):
                return frame
            if not self._is_outside(frame):
                return None
        return None

    def _is_outside(self, frame: str) -> bool:
        return any(pattern.search(frame) for pattern in self.outside)


def _outlier(ranks: dict[int, Dump]) -> list[int]:
    """The only rank in a frame of its own while all others share a frame; also a single rank."""
    counts = Counter(value["frames"][0] for value in ranks.values())
    alone = [rank for rank, value in ranks.items() if counts[value["frames"][0]] == 1]
    return alone if len(alone) == 1 and len(counts) <= 2 else []


def _lock(value: Dump) -> dict[str, Any]:
    lock = value.get("lock")
    return lock if isinstance(lock, dict) and isinstance(lock.get("path"), str) else {}


def _lock_facts(ranks: dict[int, Dump], stuck: list[int]) -> dict[str, Any]:
    """The lock file that all of the stuck ranks wait for, or one that was left behind; nothing if one of them does something else."""
    locks = {rank: lock for rank in stuck if (lock := _lock(ranks[rank]))}
    if not locks or (len(locks) < len(stuck) and not any(lock.get("age_seconds") for lock in locks.values())):
        return {}
    lock = next(iter(locks.values()))
    facts: dict[str, Any] = {"lock": lock["path"], "lock_ranks": ", ".join(map(str, locks))}
    if lock.get("holder"):
        return facts | {"lock_holder": f"{lock.get('holder_name', 'process')} ({lock['holder']})"}
    return facts | ({"lock_minutes": max(1, lock["age_seconds"] // 60)} if lock.get("age_seconds") else {})


def _quoted(rank: int, value: Dump) -> str:
    lock = f", waits for {path}" if (path := _lock(value).get("path")) else ""
    return f"rank {rank}, silent for {value['silent_seconds']} s{lock}: " + " < ".join(map(_shown, value["frames"][:6]))


def _until(frames: list[str], end: re.Pattern[str]) -> Iterator[str]:
    return itertools.takewhile(lambda frame: not end.search(frame), frames)


def _is_dump(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("frames"), list) or not value["frames"]:
        return False
    return all(isinstance(frame, str) for frame in value["frames"]) and all(
        type(value.get(key)) is int for key in ("step", "silent_seconds")
    )


def _without_line(frame: str) -> str:
    found = _FRAME.fullmatch(frame)
    return f"{found['file']} {found['function']}" if found else frame


def _shown(frame: str) -> str:
    """`trainer.py:12 in train`: the frame without folders."""
    found = _FRAME.fullmatch(frame)
    if not found:
        return frame
    name = found["file"].replace("\\", "/").rpartition("/")[2]
    return f"{name}:{found['line']} in {found['function']}"
