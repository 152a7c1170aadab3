"""`collectives`: compare the ranks' NCCL flight recorders to find the rank missing from a collective."""

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
"""Facts of doctor.readers.snapshots.FlightRecorder, one per rank."""

_MAX_WORLD_SIZE = 100_000
"""Ranks. A larger `world_size` is treated as damaged; it bounds the list of absent ranks."""

_MAX_RANKS_SHOWN = 8
"""Ranks listed in a fact, and quotes in the evidence."""


class _Collective(msgspec.Struct, frozen=True):
    """A collective operation in a rank's flight recorder."""

    operation: str
    number: int
    state: str
    group: str
    place: str


class _Dump(msgspec.Struct, frozen=True):
    """A rank's dump: the operation it waits in and the last per process group (doctor.readers.snapshots.FlightRecorder)."""

    waits: _Collective | None
    last: dict[str, _Collective]

    def reached(self, group: str) -> _Collective | None:
        """The last operation of the group that the rank has started."""
        known = [found for found in (self.waits, self.last.get(group)) if found is not None and found.group == group]
        return max(known, key=lambda operation: operation.number, default=None)


class Collectives(DetectorBase):
    """Compare the ranks in the process group in which most ranks wait, at the last operation that any of them waits in.

    Needs at least two dumps. No match if every rank reached the operation. Facts: `operation`, `number`, `place`, `waiting` (ranks),
    and the first that applies of:

    1. `missing`: ranks that did not reach the operation; `last_operation`, `last_number`, `last_place` of the first of them.
    2. `others`: ranks in another operation with the same number; `other_operation`, `other_place` of the first of them.
    3. `absent`: ranks without a dump.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Fact,)
    facts: tuple[str, ...] = (
        "operation", "number", "place", "waiting", "missing", "last_operation", "last_number", "last_place", "other_operation",
        "other_place", "others", "absent",
    )  # fmt: skip

    def finish(self, run: Run) -> Iterator[Match]:
        dumps = {int(found[1]): dump for name, value in run.facts.items() if (found := _NAME.fullmatch(name)) and (dump := _dump(value))}
        groups = Counter(dump.waits.group for dump in dumps.values() if dump.waits)
        if len(dumps) < 2 or not groups:
            return
        group = groups.most_common(1)[0][0]
        reached = {rank: dump.reached(group) for rank, dump in dumps.items()}
        waiting = {rank: dump.waits for rank, dump in dumps.items() if dump.waits and dump.waits.group == group}
        number = max(operation.number for operation in waiting.values())
        there = {rank: operation for rank, operation in waiting.items() if operation.number == number}
        first = there[min(there)]
        facts: dict[str, Any] = {"operation": first.operation, "number": number, "place": first.place, "waiting": _listed(there)}
        missing = [rank for rank, operation in sorted(reached.items()) if operation is None or operation.number < number]
        others = [rank for rank, operation in sorted(there.items()) if operation.operation != first.operation]
        absent = _absent(run, dumps)
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
        shown = dict.fromkeys(rank for rank in (*missing, *others, *there) if rank in dumps)
        evidence = [
            Evidence(run.fact_where[f"nccl.collectives.rank{rank}"], _quoted(rank, dumps[rank].waits or reached[rank], group))
            for rank in list(shown)[:_MAX_RANKS_SHOWN]
        ]
        known = {name: value for name, value in facts.items() if value != ""}
        yield Match(evidence=tuple(evidence), facts=known, rank=(missing or others or absent)[0])


def _dump(value: Any) -> _Dump | None:
    try:
        return convert(value, _Dump)
    except msgspec.ValidationError:
        return None


def _absent(run: Run, dumps: dict[int, _Dump]) -> list[int]:
    """Ranks without a dump."""
    world = run.facts.get("world_size")
    if type(world) is not int or not 1 < world <= _MAX_WORLD_SIZE or max(dumps) >= world:
        return []
    return [rank for rank in range(world) if rank not in dumps]


def _listed(ranks: Iterable[int]) -> str:
    shown = [str(rank) for rank in sorted(ranks)]
    return ", ".join(shown[:_MAX_RANKS_SHOWN]) + (" ..." if len(shown) > _MAX_RANKS_SHOWN else "")


def _quoted(rank: int, last: _Collective | None, group: str) -> str:
    if last is None:
        return f"rank {rank}: no operation of process group {group}"
    place = f" ({last.place})" if last.place else ""
    return f"rank {rank}: {last.operation}, number {last.number}: {last.state}{place}"
