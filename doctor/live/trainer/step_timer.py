"""Times of a training loop, taken from its events: seconds per step, waiting for data, saving, and how long a pause is to be expected."""

from __future__ import annotations

import time
from typing import Literal

Phase = Literal["step", "evaluation", "save"]

LEAST_SECONDS, FACTOR = 30.0, 5.0
"""A pause is too long beyond both 30 s and five times the longest pause of its phase so far. Own choice: of the lab's healthy trainings
with slow evaluations, saves, data and compilation (tests/lab/hangs.py) none came near."""
UNKNOWN_SECONDS = 300.0
"""The least for a phase that this training has not been through: a first evaluation or save may take any multiple of a step."""


class StepTimer:
    """All values in seconds of `time.perf_counter`. One instance per training; the training thread writes, the recorder's thread reads."""

    def __init__(self) -> None:
        now = time.perf_counter()
        self.start = now
        self.last_event = now
        self.last_note = now
        """When a Step event was last written."""
        self.phase: Phase = "step"
        self.slowest: dict[Phase, float] = {"step": 0.0, "evaluation": 0.0, "save": 0.0}
        """The longest pause between two events of each phase."""
        self._known: set[Phase] = set()
        self._save_due = False
        self._last_record = now
        self._data_wait = self._save = 0.0
        self._steps = 0

    def event(self) -> float:
        """The training is alive; returns now."""
        since, self.last_event = self.last_event, time.perf_counter()
        if self.last_event - since > self.slowest[self.phase]:
            self.slowest[self.phase] = self.last_event - since
        return self.last_event

    def step_begins(self) -> float:
        """The batches of a step are there (transformers fetches them before `on_step_begin`); returns when the wait for them began."""
        since = self.last_event
        self._data_wait += self.event() - since
        self.phase = "step"
        return since

    def step_ends(self) -> float:
        """One more step is done; returns now."""
        now = self.event()
        self._known.add("step")
        self._steps += 1
        return now

    def goes_on_with(self, evaluation: bool, save: bool) -> bool:
        """After a step: whether an evaluation or a save comes next (in this order), which take longer than steps do."""
        self._save_due = save
        if evaluation or save:
            self.phase = "evaluation" if evaluation else "save"
        return evaluation or save

    def evaluates(self) -> float:
        """A batch of an evaluation or a prediction is done; returns now."""
        self.phase = "evaluation"
        return self.event()

    def evaluated(self) -> None:
        """An evaluation has its figures."""
        if self.phase == "evaluation":
            self.event()
            self._known.add("evaluation")
            self.phase = "save" if self._save_due else "step"

    def saved(self) -> None:
        """A checkpoint was written since the last event."""
        since = self.last_event
        self._save += self.event() - since
        self._known.add("save")
        self._save_due, self.phase = False, "step"

    @property
    def pause(self) -> float:
        """Seconds since the last event."""
        return time.perf_counter() - self.last_event

    @property
    def expected(self) -> float:
        """Seconds after which the next event is overdue."""
        least = LEAST_SECONDS if self.phase in self._known else UNKNOWN_SECONDS
        return max(least, FACTOR * self.slowest[self.phase])

    def elapsed(self, now: float) -> float:
        """Seconds since the training began."""
        return round(now - self.start, 3)

    def take(self, now: float) -> tuple[dict[str, float], int]:
        """Figures since the last call and the number of steps they cover.

        `step_seconds` and `data_wait_seconds` are means per step, `save_seconds` is a sum.
        """
        out: dict[str, float] = {}
        if self._save:
            out["save_seconds"] = round(self._save, 6)
            self._save = 0.0
        steps = self._steps
        if steps:
            passed = now - self._last_record
            out["step_seconds"] = round(passed / steps, 6)
            out["data_wait_seconds"] = round(min(self._data_wait, passed) / steps, 6)
            self._last_record, self._data_wait, self._steps = now, 0.0, 0
        return out, steps
