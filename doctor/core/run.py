"""Run: the state of one training run, folded from its events in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from doctor.core.events import ConfigSeen, Crash, Event, Fact, Origin, ProcessEnd, Sample, Step, Where
from doctor.core.series import Series
from doctor.support.optional import need

if TYPE_CHECKING:
    import pandas

ORIGIN_TRUST: tuple[Origin, ...] = ("inferred", "model_card", "adapter", "events", "training_args", "console", "journal", "yaml", "command")
"""Least trusted first: a value of a later origin replaces that of an earlier one."""

_MAX_RANKS, _MAX_ATTEMPTS, _MAX_EXCEPTIONS, _MAX_ENDS, _MAX_METRICS = 100_000, 10_000, 256, 256, 512
"""Bounds of what a run remembers, far above any real run; a damaged or hostile log must not fill the memory."""


class Run:
    """Everything known about a run so far. Detectors of one lane must not read what events of the other lane write."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.config_where: dict[str, Where] = {}
        self.facts: dict[str, Any] = {}
        self.fact_where: dict[str, Where] = {}
        self.series: dict[str, Series] = {}
        self.samples: dict[str, Series] = {}
        self.seconds: Series = Series()
        self.step_seconds: Series = Series()
        self.first_step: int | None = None
        self.last_step: int | None = None
        self.attempts: set[int] = set()
        self.ranks: set[int] = set()
        self.ends: list[ProcessEnd] = []
        self.exceptions: set[str] = set()
        self.seen: set[str] = set()
        self._trust: dict[str, int] = {}
        self._clock: tuple[int, int, float] | None = None

    def apply(self, event: Event) -> None:
        """Add an event."""
        if event.rank is not None and len(self.ranks) < _MAX_RANKS:
            self.ranks.add(event.rank)
        self.seen.add(event.__class__.__name__)
        if isinstance(event, Step):
            self._apply_step(event)
            return
        match event:
            case Crash():
                if len(self.exceptions) < _MAX_EXCEPTIONS:
                    self.exceptions.add(event.exception)
            case ConfigSeen():
                self._apply_config(event)
            case Fact():
                self.facts[event.name] = event.value
                self.fact_where[event.name] = event.where
            case Sample():
                for name, value in event.metrics.items():
                    self.samples.setdefault(name, Series()).append(round(event.seconds or 0), value)
            case ProcessEnd():
                self.ends = [*self.ends, event][-_MAX_ENDS:]

    def apply_all(self, steps: Sequence[Step]) -> None:
        """`apply` for each step; at once for those of one process with the same metrics, as between two evaluations."""
        for _, alike in groupby(steps, key=lambda step: (step.rank, step.attempt, step.seconds is None, *step.metrics)):
            first, *rest = alike
            self.apply(first)
            if rest:
                self._extend(first, rest)

    def _extend(self, first: Step, rest: Sequence[Step]) -> None:
        """Add the steps after `first`, which differ from it in their values only."""
        numbers = [step.step for step in rest]
        self.first_step = min(first.step if self.first_step is None else self.first_step, *numbers)
        self.last_step = max(first.step if self.last_step is None else self.last_step, *numbers)
        for name in self.series.keys() & first.metrics.keys():
            self.series[name].extend(numbers, [step.metrics[name] for step in rest])
        if first.seconds is not None:
            moments = [step.seconds for step in rest if step.seconds is not None]
            self.seconds.extend(numbers, moments)
            for number, moment in zip(numbers, moments, strict=True):
                self._apply_pace(first.attempt, number, moment)

    def _apply_step(self, event: Step) -> None:
        step = event.step
        if event.attempt not in self.attempts and len(self.attempts) < _MAX_ATTEMPTS:
            self.attempts.add(event.attempt)
        if self.first_step is None or self.last_step is None:
            self.first_step = self.last_step = step
        elif step > self.last_step:
            self.last_step = step
        elif step < self.first_step:
            self.first_step = step
        known = self.series
        for name, value in event.metrics.items():
            if name in known:
                known[name].append(step, value)
            elif len(known) < _MAX_METRICS:
                known[name] = Series()
                known[name].append(step, value)
        if event.seconds is not None:
            self.seconds.append(step, event.seconds)
            self._apply_pace(event.attempt, step, event.seconds)

    def _apply_pace(self, attempt: int, step: int, seconds: float) -> None:
        """Wall time per step since the last step with a time. A series of its own: a downsampled clock would hide a slow step."""
        last = self._clock
        if last is not None and last[0] == attempt and step > last[1] and seconds <= last[2]:
            return  # a clock of whole seconds that did not advance: the next steps share the time
        self._clock = (attempt, step, seconds)
        if last is not None and last[0] == attempt and step > last[1]:
            self.step_seconds.append(step, (seconds - last[2]) / (step - last[1]))

    def _apply_config(self, event: ConfigSeen) -> None:
        trust = ORIGIN_TRUST.index(event.origin)
        for key, value in event.values.items():
            if trust >= self._trust.get(key, -1):
                self.config[key] = value
                line = event.lines.get(key)
                self.config_where[key] = event.where if line is None else Where(event.where.file, line)
                self._trust[key] = trust

    def origin(self, key: str) -> Origin | None:
        """Where an option's value was found; None if it is unknown."""
        return ORIGIN_TRUST[self._trust[key]] if key in self._trust else None

    @property
    def has_config(self) -> bool:
        """Whether options were read; single ones that follow from a log or a name are no configuration."""
        return any(self.origin(key) != "inferred" for key in self.config)

    @property
    def completed(self) -> bool:
        """Whether the run reported that it ended as planned (train results, last step, closing line)."""
        return self.facts.get("run.completed") is True

    def frame(self) -> pandas.DataFrame:
        """The series as a table: index `step` (int), one float64 column a metric, NaN where a step lacks it.

        Columns bear the names of `trainer_state.json` and their units: `loss`, `eval_loss` (nats per token), `grad_norm` (L2, before
        clipping), `learning_rate`, `epoch`, `throughput` (tokens/s), `total_tokens`, `vram_allocated_gib` and `vram_reserved_gib` (GiB,
        peak), and what else the run logged (`rewards/...`, `eval_...`); `seconds` is wall time since training began, `step_seconds` that
        of one step. Where a step was trained more than once (a resumed run) the last attempt counts. A column of more than
        `SERIES_POINTS` points holds the extremes of each stretch. Raises MissingPackage, which names the pip command, without pandas.
        """
        library = need("pandas", "pandas", "Run.frame()")
        columns = {name: _last_per_step(series) for name, series in self.series.items()}
        columns |= {
            name: _last_per_step(series) for name, series in (("seconds", self.seconds), ("step_seconds", self.step_seconds)) if len(series)
        }
        table: pandas.DataFrame = library.DataFrame({name: library.Series(points, dtype="float64") for name, points in columns.items()})
        return table.sort_index().rename_axis("step")

    def _repr_html_(self) -> str:
        """How a notebook shows the run: each metric's count, mean, quartiles and extremes."""
        return str(self.frame().describe().transpose().to_html(float_format="{:.6g}".format))


def _last_per_step(series: Series) -> dict[int, float]:
    return dict(series)
