"""What every detector is: an incremental observer that turns events into matches."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, ClassVar, Protocol, runtime_checkable

from doctor.core.events import Event
from doctor.core.run import Run
from doctor.rulebook.findings import Match

QUIET: Iterator[Match] = iter(())
"""No match; shared, as most events give none."""


def has_policy_loss(metrics: Container[str]) -> bool:
    """Whether these are metrics of a policy-gradient trainer (trl's GRPO and RLOO): its loss is no measure of how good the model is.

    On its own samples the advantages cancel, and what is left is beta times the KL divergence, which grows while the policy learns
    (DeepSeekMath, arXiv 2402.03300, equation 3).
    """
    return "reward_std" in metrics or "eval_reward_std" in metrics


@runtime_checkable
class Detector(Protocol):
    """Built from the parameters under a rule's `when:`; unknown parameters raise TypeError, impossible ones ValueError.

    A detector takes time only from events, never from the clock, and keeps bounded state. Metrics and text have no common order: a
    detector reads events of one of the two only (and ConfigSeen; in `finish`, everything in `run`). One instance serves every rule with
    the same `when:`. Most are a `DetectorBase`, which has a default for all but `reads`, `facts` and one of `feed` and `finish`.
    """

    reads: ClassVar[tuple[type[Event], ...]]
    facts: tuple[str, ...]
    """Names of the facts its matches may carry; the texts and conditions of its rules may use these."""

    @property
    def literals(self) -> tuple[str, ...]:
        """For a detector of text: one of these stands in every line it can match. Empty: it must see every event it reads."""
        ...

    def could_look(self, run: Run) -> str | None:
        """None if `run` holds all that it needs; else the first missing input, as in `has_input`."""
        ...

    def compile(self) -> None:
        """Compile expressions that are otherwise compiled on first use. Raises re.error."""
        ...

    def feed(self, event: Any, run: Run) -> Iterator[Match]:
        """Process an event; return `QUIET` if there is no match.

        Of `run` only the configuration may be read. Each detector gets a thousand steps at a time, so the series of `run` may already
        contain later steps.
        """
        ...

    def finish(self, run: Run) -> Iterator[Match]:
        """The run's end, or the end of what is known: what could not be decided before."""
        ...


class DetectorBase:
    """Defaults: needs nothing, sees every event it reads, finds nothing."""

    needs: tuple[str, ...] = ()
    """Inputs without which it cannot look, as in `has_input`."""
    literals: tuple[str, ...] = ()

    def could_look(self, run: Run) -> str | None:
        """The first of `needs` that `run` lacks."""
        return next((need for need in self.needs if not has_input(need, run)), None)

    def compile(self) -> None:
        """Nothing: it holds compiled patterns only, or none."""

    def feed(self, event: Any, run: Run) -> Iterator[Match]:
        """Nothing: it decides at the end."""
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        """Nothing: it decides with each event."""
        return QUIET


def decides_by_event(detector: Detector) -> bool:
    """Whether it looks at events as they come; one that only has `finish` need not be given any."""
    return getattr(type(detector), "feed", None) is not DetectorBase.feed


def has_input(need: str, run: Run) -> bool:
    """Whether the run holds an input: `text`, `config`, `steps`, `samples`, `metrics.NAME` or `samples.NAME`."""
    kind, _, name = need.partition(".")
    if kind == "metrics":
        return name in run.series
    if kind == "samples":
        return bool(run.samples) if not name else name in run.samples
    if kind == "text":
        return "text" in run.facts or bool({"LogLine", "Crash"} & run.seen)
    return {"config": run.has_config, "steps": run.first_step is not None}.get(kind, False)
