"""`standstill`: find the rank the others wait for, from stack dumps of a hung run."""

from __future__ import annotations

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


class Standstill(DetectorBase):
    """Match if the run did not continue after the dump.

    - `waits`: regular expressions of frames (`file:line function`) in which a rank waits for others, within the `depth` innermost.
    - `outside`: regular expressions of library frames; `place` is the innermost other frame.

    Facts: `asked`, `waiting` (numbers of ranks); `stuck`, `stuck_rank` (ranks that do not wait like the others, and the first of them;
    absent if none differs); `place`, `stuck_in` of that rank; `meeting` (where the others wait); `silent_seconds`, `after_step`.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Fact,)
    facts: tuple[str, ...] = ("asked", "waiting", "stuck_rank", "stuck", "place", "stuck_in", "meeting", "silent_seconds", "after_step")

    def __init__(self, waits: Sequence[str], outside: Sequence[str], depth: int) -> None:
        if isinstance(waits, str) or isinstance(outside, str) or not waits:
            raise ValueError("waits and outside are lists, and waits is not empty")
        self.waits, self.outside = tuple(map(lazy_compile, waits)), tuple(map(lazy_compile, outside))
        self.depth = depth

    def finish(self, run: Run) -> Iterator[Match]:
        dumps = {int(found[1]): value for name, value in run.facts.items() if (found := _NAME.fullmatch(name)) and _is_dump(value)}
        ranks = {rank: value for rank, value in dumps.items() if (run.last_step or 0) <= value["step"]}
        if not ranks or run.completed:
            return
        waiting = [rank for rank in sorted(ranks) if self._waits(ranks[rank]["frames"])]
        stuck = [rank for rank in sorted(ranks) if rank not in waiting] if waiting else self._outlier(ranks)
        first = stuck[0] if stuck else min(ranks)
        facts: dict[str, Any] = {
            "asked": len(ranks), "waiting": len(waiting), "silent_seconds": max(value["silent_seconds"] for value in ranks.values()),
            "after_step": max(value["step"] for value in ranks.values()), "place": self._place(ranks[first]["frames"]),
            "stuck_in": _shown(ranks[first]["frames"][0]),
        }  # fmt: skip
        if stuck:
            facts |= {"stuck": ", ".join(map(str, stuck)), "stuck_rank": first}
        others = [rank for rank in ranks if rank not in stuck]
        if others and len(ranks) > 1:
            facts["meeting"] = self._place(ranks[others[0]]["frames"])
        evidence = [Evidence(run.fact_where[f"stands.rank{rank}"], self._quoted(rank, ranks[rank])) for rank in [*stuck, *others][:8]]
        yield Match(evidence=tuple(evidence), facts=facts, rank=first if stuck else None)

    def _waits(self, frames: list[str]) -> bool:
        return any(pattern.search(frame) for frame in frames[: self.depth] for pattern in self.waits)

    def _outlier(self, ranks: dict[int, dict[str, Any]]) -> list[int]:
        """The only rank in a frame of its own while all others share a frame; also a single rank."""
        counts = Counter(value["frames"][0] for value in ranks.values())
        alone = [rank for rank, value in ranks.items() if counts[value["frames"][0]] == 1]
        return alone if len(alone) == 1 and len(counts) <= 2 else []

    def _place(self, frames: list[str]) -> str:
        own = (frame for frame in frames if not any(pattern.search(frame) for pattern in self.outside))
        return _shown(next(own, frames[0]))

    def _quoted(self, rank: int, value: dict[str, Any]) -> str:
        return f"rank {rank}, silent for {value['silent_seconds']} s: " + " < ".join(map(_shown, value["frames"][:6]))


def _is_dump(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("frames"), list) or not value["frames"]:
        return False
    return all(isinstance(frame, str) for frame in value["frames"]) and all(
        type(value.get(key)) is int for key in ("step", "silent_seconds")
    )


def _shown(frame: str) -> str:
    """`trainer.py:12 in train`: the frame without folders."""
    found = _FRAME.fullmatch(frame)
    if not found:
        return frame
    name = found["file"].replace("\\", "/").rpartition("/")[2]
    return f"{name}:{found['line']} in {found['function']}"
