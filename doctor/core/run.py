"""Run: what is known so far of one training run, a fold over its events in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from doctor.core.events import ConfigSeen, Crash, Event, Fact, Origin, ProcessEnd, Sample, Step, Where
from doctor.support.optional import need

if TYPE_CHECKING:
    import pandas

ORIGIN_TRUST: tuple[Origin, ...] = ("model_card", "adapter", "events", "training_args", "console", "journal", "yaml", "command")
"""Least trusted first: a value found in a later origin wins over the same key of an earlier one."""

SERIES_POINTS = 8192
"""A series never holds more points than this; a longer one keeps the extremes of each stretch (min, max, every non-finite run)."""


class Series:
    """One metric over steps, in constant memory: `steps[i]`, `values[i]`; when full, each four points keep their min and max."""

    __slots__ = ("capacity", "steps", "values")

    def __init__(self, capacity: int = SERIES_POINTS) -> None:
        self.capacity = capacity
        self.steps: list[int] = []
        self.values: list[float] = []

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self.steps, self.values, strict=True)

    def append(self, step: int, value: float) -> None:
        """Adds a point; halves the resolution (keeping extremes) once `capacity` is exceeded."""
        steps = self.steps
        steps.append(step)
        self.values.append(value)
        if len(steps) > self.capacity:
            self._thin()

    def extend(self, steps: Sequence[int], values: Sequence[float]) -> None:
        """As `append` for each point, in order."""
        place = 0
        while place < len(steps):
            stop = place + self.capacity + 1 - len(self.steps)
            self.steps += steps[place:stop]
            self.values += values[place:stop]
            place = stop
            if len(self.steps) > self.capacity:
                self._thin()

    def _thin(self) -> None:
        """Keep the extremes of each four points."""
        values, kept = self.values, list[int]()
        for start, four in enumerate(zip(values[::4], values[1::4], values[2::4], values[3::4], strict=False)):
            if isfinite(sum(four)):
                low, high = four.index(min(four)), four.index(max(four))
                kept += (4 * start + low,) if low == high else (4 * start + min(low, high), 4 * start + max(low, high))
            else:
                kept += self._extremes(4 * start, 4 * start + 4)
        kept += self._extremes(len(values) // 4 * 4, len(values))
        self.steps = [self.steps[place] for place in kept]
        self.values = [self.values[place] for place in kept]

    def _extremes(self, start: int, stop: int) -> list[int]:
        """The places of the lowest, the highest and the first non-finite value of a stretch."""
        places = range(start, stop)
        finite = [i for i in places if isfinite(self.values[i])]
        broken = [i for i in places if not isfinite(self.values[i])][:1]
        ends = [min(finite, key=self.values.__getitem__), max(finite, key=self.values.__getitem__)] if finite else []
        return sorted({*ends, *broken})


class Run:
    """Everything known about one run so far. Detectors of one lane must not read what the other lane writes (see design law on lanes)."""

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
        """Takes one event into account."""
        if event.rank is not None and len(self.ranks) < 100_000:
            self.ranks.add(event.rank)
        self.seen.add(event.__class__.__name__)
        if isinstance(event, Step):
            self._apply_step(event)
            return
        match event:
            case Crash():
                if len(self.exceptions) < 256:
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
                self.ends = [*self.ends, event][-256:]

    def apply_all(self, steps: Sequence[Step]) -> None:
        """As `apply` for each, metric by metric where all are alike."""
        first, rest = steps[0], steps[1:]
        self.apply(first)
        columns = self._columns(first, rest) if rest else None
        if columns is None:
            for step in rest:
                self.apply(step)
            return
        numbers = [step.step for step in rest]
        self.first_step = min(first.step if self.first_step is None else self.first_step, *numbers)
        self.last_step = max(first.step if self.last_step is None else self.last_step, *numbers)
        for name, values in columns.items():
            self.series[name].extend(numbers, values)
        seconds = [step.seconds for step in rest if step.seconds is not None]
        if seconds:
            self.seconds.extend(numbers, seconds)
            for number, told in zip(numbers, seconds, strict=True):
                self._apply_pace(first.attempt, number, told)

    def _columns(self, first: Step, rest: Sequence[Step]) -> dict[str, list[float]] | None:
        """The values of each metric; None where the steps are not of one process or do not tell the same."""
        metrics = [step.metrics for step in rest]
        told = {(step.rank, step.attempt, step.seconds is None) for step in rest}
        if told != {(first.rank, first.attempt, first.seconds is None)} or set(map(len, metrics)) != {len(first.metrics)}:
            return None
        try:
            return {name: [one[name] for one in metrics] for name in first.metrics if name in self.series}
        except KeyError:
            return None

    def _apply_step(self, event: Step) -> None:
        step = event.step
        if event.attempt not in self.attempts and len(self.attempts) < 10_000:
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
            elif len(known) < 512:
                known[name] = Series()
                known[name].append(step, value)
        if event.seconds is not None:
            self.seconds.append(step, event.seconds)
            self._apply_pace(event.attempt, step, event.seconds)

    def _apply_pace(self, attempt: int, step: int, seconds: float) -> None:
        """Wall time of one step, from the last step that told its time; kept apart, for a thinned clock would hide a slow step."""
        last = self._clock
        if last is not None and last[0] == attempt and step > last[1] and seconds <= last[2]:
            return  # a clock of whole seconds that has not moved: the next steps share the time
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
        """Where an option's value was found; None for one that is not known."""
        return ORIGIN_TRUST[self._trust[key]] if key in self._trust else None

    @property
    def completed(self) -> bool:
        """Whether the run said itself that it ended as planned (train results written, last step reached, closing line)."""
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
