"""What is remembered of a run's exceptions while its events go by, for the case that no rule explains its end."""

from __future__ import annotations

from doctor.core.events import Crash, Event, Fact, Step, Where

KEPT = 8
"""Tracebacks that are kept from the beginning and from the end; of each at most this many exceptions of its chain."""


class LastEvents:
    """The first and last tracebacks since the last training step, those after the completed training, and whether the last step is exact.

    A traceback is a list: the original exception, then those that were raised while it was handled.
    """

    def __init__(self) -> None:
        self.first: list[list[Crash]] = []
        self.last: list[list[Crash]] = []
        self.after_end: list[Crash] = []
        self.exact_steps = False
        self.checkpoint_written = False
        """Whether the training went on after the log told of a checkpoint: one that was only begun may be incomplete."""
        self._saved: Where | None = None
        self._last_step = -1
        self._steps: dict[str, Where] = {}
        self._completed: Where | None = None

    @property
    def tracebacks(self) -> list[list[Crash]]:
        """In the order in which they were printed."""
        return [*self.first, *(chain for chain in self.last if not any(chain is other for other in self.first))]

    def see(self, event: Event | list[Step]) -> None:
        """One event, or a batch of steps."""
        steps = event if isinstance(event, list) else [event] if isinstance(event, Step) else []
        if isinstance(event, Fact) and event.name == "checkpoint.saved":
            self._saved = self._saved or event.where
        elif steps and self._saved is not None:  # steps are read in batches, which may come after what was printed after them
            self.checkpoint_written |= _is_after(steps[-1].where, self._saved)
        if steps and steps[-1].step >= self._last_step:
            self._last_step, self.exact_steps = steps[-1].step, steps[-1].exact
            self._went_on(steps[-1].where)
        if steps:
            self._steps[steps[-1].where.file] = steps[-1].where
        if isinstance(event, Crash):
            self._crash(event)
        elif isinstance(event, Fact) and event.name == "run.completed" and event.value is True:
            self._completed = event.where

    def is_outlived(self, where: Where) -> bool:
        """Whether the same log holds a training step below this line: what it says did not end the run."""
        step = self._steps.get(where.file)
        return step is not None and _is_before(where, step)

    def _went_on(self, where: Where) -> None:
        """A step after a traceback in the same log: the program had caught the exception."""
        for kept in (self.first, self.last):
            if where.line is not None:
                kept[:] = [chain for chain in kept if not _is_before(chain[0].where, where)]

    def _crash(self, crash: Crash) -> None:
        if crash.chain and self.last:
            if len(self.last[-1]) < KEPT:
                self.last[-1].append(crash)
        else:
            chain = [crash]
            self.last = [*self.last, chain][-KEPT:]
            if len(self.first) < KEPT:
                self.first.append(chain)
        if not crash.chain and self.is_after_end(crash.where):
            self.after_end = [*self.after_end, crash][-KEPT:]

    def is_after_end(self, where: Where) -> bool:
        """Whether a line stands below the one that says that the training is completed, in the same file."""
        end = self._completed
        return end is not None and end.file == where.file and end.line is not None and where.line is not None and where.line > end.line


def _is_before(place: Where, step: Where) -> bool:
    return place.file == step.file and place.line is not None and step.line is not None and place.line < step.line


def _is_after(where: Where, other: Where) -> bool:
    """Whether a line stands below another one of the same file."""
    return where.file == other.file and where.line is not None and other.line is not None and where.line > other.line
