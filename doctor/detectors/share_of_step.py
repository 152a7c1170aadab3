"""`share_of_step`: a part of the step, such as waiting for data, takes too large a share of its time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from doctor.core.events import Event, Step
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match


class ShareOfStep(DetectorBase):
    """Match if the summed seconds of `part` are at least the share `least` of those of `whole`.

    - `part`, `whole`: metrics of the live callback, such as data_wait_seconds and step_seconds.
    - `skip`: logs ignored at the start (warm-up of caches and workers); at least `records` logs must follow.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    facts: tuple[str, ...] = ("metric", "step", "value", "baseline", "share", "part_seconds", "step_seconds", "records")

    def __init__(self, *, part: str, whole: str, least: float, skip: int, records: int) -> None:
        self.part, self.whole, self.least, self.skip, self.records = part, whole, least, skip, records
        self.needs: tuple[str, ...] = (f"metrics.{part}",)
        self.count = 0
        self.sums = [0.0, 0.0]
        self.first: Step | None = None
        self.last: Step | None = None

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        part, whole = event.metrics.get(self.part), event.metrics.get(self.whole)
        if part is None or whole is None or not math.isfinite(part + whole):
            return QUIET
        self.count += 1
        if self.count > self.skip:
            self.sums[0] += part
            self.sums[1] += whole
            self.first, self.last = self.first or event, event
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        logs = self.count - self.skip
        part, whole = self.sums
        if logs < self.records or whole <= 0 or part < self.least * whole or self.first is None or self.last is None:
            return
        facts = {
            "metric": self.part, "step": self.first.step, "value": part / logs, "baseline": whole / logs, "share": 100 * part / whole,
            "part_seconds": part / logs, "step_seconds": whole / logs, "records": logs,
        }  # fmt: skip
        text = f"{self.part} {part / logs:.3g} s of {whole / logs:.3g} s a step over {logs} logs"
        yield Match(evidence=(Evidence(self.first.where, text),), facts=facts, steps=(self.first.step, self.last.step))
