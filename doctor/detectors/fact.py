"""`fact`: a fact of the run or its configuration is set (missing files, for example)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from doctor.core.events import Event, Fact
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match


class KnownFact(DetectorBase):
    """Match if the fact `name` is set (by config/preflight.py or a reader). `key`: the option it concerns, quoted as evidence."""

    reads: ClassVar[tuple[type[Event], ...]] = (Fact,)
    needs: tuple[str, ...] = ("config",)
    facts: tuple[str, ...] = ("value", "known", "option")

    def __init__(self, name: str, key: str) -> None:
        self.name, self.key = name, key

    def finish(self, run: Run) -> Iterator[Match]:
        value = run.facts.get(self.name)
        if value is None:
            return
        where = run.config_where.get(self.key, run.fact_where[self.name])
        facts = {"value": value, "option": run.config.get(self.key), "known": run.facts.get("datasets_known")}
        quoted = f"{self.key}: {run.config[self.key]}" if self.key in run.config else str(value)
        yield Match(evidence=(Evidence(where, quoted),), facts={name: fact for name, fact in facts.items() if fact is not None})
