"""`collectives`: the ranks' flight recorders side by side: who was missing in the operation that the others wait in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from doctor.core.events import Event, Fact
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match
from doctor.support.decoding import convert
from doctor.support.lazy_regex import lazy_compile

_NAME = lazy_compile(r"nccl\.collectives\.rank(\d{1,9})")
_MOST_RANKS = 100_000


class _Collective(msgspec.Struct, frozen=True):
    """One collective operation of a rank's flight recorder."""

    operation: str
    number: int
    state: str
    group: str
    place: str


class _Told(msgspec.Struct, frozen=True):
    """What one rank's dump tells: see doctor.readers.snapshots.FlightRecorder."""

    waits: _Collective | None
    last: dict[str, _Collective]

    def reached(self, group: str) -> _Collective | None:
        """The furthest operation of the group that the rank has begun."""
        known = [one for one in (self.waits, self.last.get(group)) if one is not None and one.group == group]
        return max(known, key=lambda one: one.number, default=None)


class Collectives(DetectorBase):
    """Compares, in the process group in which most ranks wait, the furthest operation that any rank waits in. Nothing is said where all
    ranks with a dump came to it, or where there is one dump only. Facts: `operation`, `number`, `place`, `waiting` (ranks) of the
    operation waited in; and one of: `missing` (ranks that had not come to it) with the first one's `last_operation`, `last_number`,
    `last_place`; `other_operation`, `other_place` and `others` (ranks that were in another operation of that number); `absent` (ranks
    that left no dump).
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Fact,)
    facts: tuple[str, ...] = (
        "operation", "number", "place", "waiting", "missing", "last_operation", "last_number", "last_place", "other_operation",
        "other_place", "others", "absent",
    )  # fmt: skip

    def finish(self, run: Run) -> Iterator[Match]:
        told = {int(found[1]): one for name, value in run.facts.items() if (found := _NAME.fullmatch(name)) and (one := _told(value))}
        groups = Counter(one.waits.group for one in told.values() if one.waits)
        if len(told) < 2 or not groups:
            return
        group = groups.most_common(1)[0][0]
        reached = {rank: one.reached(group) for rank, one in told.items()}
        waiting = {rank: one.waits for rank, one in told.items() if one.waits and one.waits.group == group}
        number = max(one.number for one in waiting.values())
        there = {rank: one for rank, one in waiting.items() if one.number == number}
        first = there[min(there)]
        facts: dict[str, Any] = {"operation": first.operation, "number": number, "place": first.place, "waiting": _listed(there)}
        missing = [rank for rank, one in sorted(reached.items()) if one is None or one.number < number]
        others = [rank for rank, one in sorted(there.items()) if one.operation != first.operation]
        absent = _absent(run, told)
        if missing:
            last = reached[missing[0]]
            facts["missing"] = _listed(missing)
            facts |= {"last_operation": last.operation, "last_number": last.number, "last_place": last.place} if last else {}
        elif others:
            other = there[others[0]]
            facts |= {"others": _listed(others), "other_operation": other.operation, "other_place": other.place}
        elif absent:
            facts["absent"] = _listed(absent)
        else:
            return
        shown = dict.fromkeys(rank for rank in (*missing, *others, *there) if rank in told)
        evidence = [
            Evidence(run.fact_where[f"nccl.collectives.rank{rank}"], _quoted(rank, told[rank].waits or reached[rank], group))
            for rank in list(shown)[:8]
        ]
        known = {name: value for name, value in facts.items() if value != ""}
        yield Match(evidence=tuple(evidence), facts=known, rank=(missing or others or absent)[0])


def _told(value: Any) -> _Told | None:
    try:
        return convert(value, _Told)
    except msgspec.ValidationError:
        return None


def _absent(run: Run, told: dict[int, _Told]) -> list[int]:
    """Ranks that left no dump."""
    world = run.facts.get("world_size")
    if type(world) is not int or not 1 < world <= _MOST_RANKS or max(told) >= world:
        return []
    return [rank for rank in range(world) if rank not in told]


def _listed(ranks: Iterable[int]) -> str:
    shown = [str(rank) for rank in sorted(ranks)]
    return ", ".join(shown[:8]) + (" ..." if len(shown) > 8 else "")


def _quoted(rank: int, one: _Collective | None, group: str) -> str:
    if one is None:
        return f"rank {rank}: no operation of process group {group}"
    place = f" ({one.place})" if one.place else ""
    return f"rank {rank}: {one.operation}, number {one.number}: {one.state}{place}"
