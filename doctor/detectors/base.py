"""What every detector is: an incremental observer that turns events into matches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

from doctor.core.events import Event
from doctor.core.run import Run
from doctor.rulebook.findings import Match

QUIET: Iterator[Match] = iter(())
"""No match: for the many events of which a detector has nothing to say."""


@runtime_checkable
class Detector(Protocol):
    """Built from the parameters under a rule's `when:`; unknown parameters raise TypeError, impossible ones ValueError.

    A detector takes time only from events, never from the clock, and keeps bounded state. Between the metric lane and the text lane
    there is no order: a detector reads events of one lane only (plus ConfigSeen and, in `finish`, everything in `run`).
    One instance serves every rule with the same `when:`.
    """

    reads: ClassVar[tuple[type[Event], ...]]
    needs: tuple[str, ...]
    """What it must have seen, else the rule "could not look": series names (`metrics.grad_norm`), `text`, `config`, `steps`, `samples`."""
    facts: tuple[str, ...]
    """The names of the facts its matches may carry (checked against the placeholders of the rules' texts)."""
    literals: tuple[str, ...]
    """For detectors of text: one of these stands in every line it can match; empty = it must see every event it reads.

    A detector may also have `expressions` (regular expressions: one of them matches every line it can match) and `markers` (literals of
    lines of which it need see only the latest): of a log in which many lines hold literals, only those lines are looked at.
    """

    def feed(self, event: Any, run: Run) -> Iterator[Match]:
        """Looks at one event; `QUIET` where there is nothing to say.

        Of `run` it may read the configuration alone: steps come to one detector after the other, a thousand at a time, so the series may
        already hold later ones.
        """
        ...

    def finish(self, run: Run) -> Iterator[Match]:
        """The run's end, or the end of what is known: what could not be decided before."""
        ...
