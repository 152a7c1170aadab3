"""Times of a training loop, taken from its events: seconds per step, waiting for data, saving, the pause since the last event."""

from __future__ import annotations

import time


class StepTimer:
    """All values in seconds of `time.perf_counter`. One instance per training; the training thread writes, the recorder's thread reads."""

    def __init__(self) -> None:
        now = time.perf_counter()
        self.start = now
        self.last_event = now
        self.last_note = now
        """When a Step event was last written."""
        self.longest_step = 0.0
        self._last_record = now
        self._data_wait = self._save = 0.0
        self._steps = 0

    def event(self) -> float:
        """The training is alive; returns now."""
        self.last_event = time.perf_counter()
        return self.last_event

    def step_begins(self) -> float:
        """The batches of a step are there (transformers fetches them before `on_step_begin`); returns when the wait for them began."""
        since, self.last_event = self.last_event, time.perf_counter()
        self._data_wait += self.last_event - since
        return since

    def step_ends(self) -> float:
        """One more step is done; returns now."""
        now = time.perf_counter()
        self.longest_step = max(self.longest_step, now - self.last_event)
        self.last_event = now
        self._steps += 1
        return now

    def saved(self) -> None:
        """A checkpoint was written since the last event."""
        since = self.last_event
        self._save += self.event() - since

    @property
    def pause(self) -> float:
        """Seconds since the last event."""
        return time.perf_counter() - self.last_event

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
