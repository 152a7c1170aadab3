"""Join what several files (sources) say about one step into one `Step`; drop repeats; number restarts as attempts.

Of a metric that several sources give, the most trusted source's value is kept (`TRUST`). Which attempt reached which step is taken from
one source, the primary one (`PRIMARY_ORDER`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite

import msgspec

from doctor.core.events import Step, Where

TRUST = ("console", "trainer_log", "journal", "mlflow", "trackio", "swanlab", "wandb", "tensorboard", "trainer_state")
"""Kinds of sources, least trusted first: by how many digits they keep. Others are trusted like the console."""
PRIMARY_ORDER = ("trainer_log", "journal", "trainer_state", "tensorboard", "wandb", "swanlab", "trackio", "mlflow", "console")
"""The first of these kinds that a run has defines its attempts. trainer_log is first: it is only ever appended to."""

_FILE_PER_PROCESS = ("tensorboard", "wandb", "swanlab", "journal")
"""Kinds of which every process begins a new file: a file that agrees with nothing known is an attempt of its own."""

_COMPARED = ("loss", "eval_loss", "reward", "predict_loss")
"""Metrics that identify a record: two records of one step with different values are of two attempts."""
_RECENT = 64
"""Steps before the current one that a late record can still be compared with."""
_MAX_LOOKAHEAD = 200
"""Rows in which a console record with an inferred step is searched for by its values."""
_ROUNDING, _DIGITS = 6e-5, 6e-4
"""Absolute and relative tolerance: four decimals (transformers 4) or four significant digits (transformers 5)."""
_CLOCK_ROUNDING = 1.0
"""Seconds: LLaMA-Factory logs elapsed time in whole seconds."""
_EPOCH_ROUNDING = 0.0051
"""Epochs are printed with two decimals."""


class Row(msgspec.Struct, gc=False):
    """One step of one attempt while sources are joined; mutable."""

    step: int
    attempt: int
    metrics: dict[str, float]
    where: Where
    seconds: float | None
    time: float | None
    exact: bool
    history: bool

    @classmethod
    def of(cls, step: Step) -> Row:
        """A row with one source's values."""
        return cls(step.step, step.attempt, step.metrics, step.where, step.seconds, step.time, step.exact, step.history)

    def event(self) -> Step:
        """The joined step."""
        return Step(
            where=self.where, attempt=self.attempt, time=self.time, step=self.step, metrics=self.metrics, seconds=self.seconds,
            exact=self.exact, history=self.history,
        )  # fmt: skip


def sequence(records: Iterable[Step]) -> Iterator[Step]:
    """Steps of one source in constant memory: repeats dropped, records of one step joined, attempts numbered from 0."""
    sequencer = Sequencer()
    for record in records:
        if record.metrics and (step := sequencer.feed(record)) is not None:
            yield step
    if sequencer.current is not None:
        yield sequencer.current


class Sequencer:
    """Turns the records of one source into steps. `current` is the latest step, which later records can still extend."""

    def __init__(self) -> None:
        self.current: Step | None = None
        self.attempt = 0
        self._recent: dict[int, dict[str, float]] = {}
        self._seconds: float | None = None

    def feed(self, record: Step) -> Step | None:
        """Add a record; return the step that no later record can change any more, if there is one."""
        current = self.current
        if current is None or (record.step > current.step and not self._clock_went_back(record)):
            return self._next(record)
        known = current.metrics if record.step == current.step else self._known(record.step)
        if known is not None:
            same = _same_record(known, record.metrics)
            at_current = record.step == current.step
            if same or (same is None and at_current) or (not self._restarted(record) and (at_current or record.seconds is not None)):
                _add_missing(known, record.metrics)
                return None
        self.attempt += 1
        self._recent.clear()
        return self._next(record)

    def feed_all(self, records: Sequence[Step]) -> list[Step]:
        """`feed` for many records at once, all with metrics, of ascending steps, with times that do not go back."""
        before, first = self.current, records[0]
        if self.attempt or before is None or first.step <= before.step or self._clock_went_back(first):
            return [step for record in records if (step := self.feed(record)) is not None]
        self.current = records[-1]
        self._remember({record.step: record.metrics for record in records[-_RECENT:]})
        self._seconds = self.current.seconds
        return [before, *records[:-1]]

    def _restarted(self, record: Step) -> bool:
        """Whether another process wrote the record: its clock started again, or it is in another file."""
        return self._clock_went_back(record) or (self.current is not None and record.where.file != self.current.where.file)

    def _clock_went_back(self, record: Step) -> bool:
        return record.seconds is not None and self._seconds is not None and record.seconds + _CLOCK_ROUNDING < self._seconds

    def _next(self, record: Step) -> Step | None:
        done = self.current
        self.current = record if record.attempt == self.attempt else msgspec.structs.replace(record, attempt=self.attempt)
        self._remember({record.step: record.metrics})
        self._seconds = record.seconds
        return done

    def _remember(self, steps: dict[int, dict[str, float]]) -> None:
        if len(self._recent) >= 2 * _RECENT:
            self._recent = dict(list(self._recent.items())[-_RECENT:])
        self._recent.update(steps)

    def _known(self, step: int) -> dict[str, float] | None:
        """The metrics of a step, if it is one of the last `_RECENT`."""
        return self._recent[step] if step in list(self._recent)[-_RECENT:] else None


def _same_record(a: dict[str, float], b: dict[str, float]) -> bool | None:
    """Whether two sets of metrics are of the same record; None if they share no metric of `_COMPARED`."""
    same = None
    for name in _COMPARED:
        if name in a and name in b:
            if not close(a[name], b[name]):
                return False
            same = True
    return same


def _add_missing(known: dict[str, float], more: dict[str, float]) -> None:
    known.update({name: value for name, value in more.items() if name not in known})


def close(a: float, b: float) -> bool:
    """Equal up to what a console rounds away (`_ROUNDING`, `_DIGITS`); NaN equals NaN."""
    return a == b or (a != a and b != b) or (isfinite(b) and abs(a - b) <= _ROUNDING + _DIGITS * abs(b))


def join(sources: Sequence[tuple[str, Sequence[Step]]]) -> Iterator[Step]:
    """Join all sources of one run, each (kind, records in file order), to steps ordered by attempt and step."""
    ordered = sorted((source for source in sources if any(record.metrics for record in source[1])), key=_primary_order)
    if not ordered:
        return iter(())
    table = Table(ordered[0])
    rest = sorted(ordered[1:], key=lambda source: (abs(_trust(source[0]) - table.trust), -len(source[1])))
    for kind, records in rest:
        table.add(kind, records)
    return (row.event() for row in table.rows())


def _has_loss(rows: Sequence[Row]) -> bool:
    return any("loss" in row.metrics for row in rows)


def _primary_order(source: tuple[str, Sequence[Step]]) -> tuple[int, int]:
    return (PRIMARY_ORDER.index(source[0]) if source[0] in PRIMARY_ORDER else len(PRIMARY_ORDER), -len(source[1]))


def _trust(kind: str) -> int:
    return TRUST.index(kind) if kind in TRUST else 0


class Table:
    """The rows joined so far: those of the primary source, and what other sources add."""

    def __init__(self, primary: tuple[str, Sequence[Step]]) -> None:
        self.trust = _trust(primary[0])
        self._kind = primary[0]
        self._rows = [Row.of(step) for step in sequence(primary[1])]
        self._of_step: dict[int, list[Row]] = {}
        self._clocks: dict[tuple[str, int], int] = {(primary[0], row.attempt): 0 for row in self._rows}
        """(Kind, attempt) -> the source whose times the attempt has: the first of the kind that was joined."""
        self._sources = 0
        for row in self._rows:
            self._of_step.setdefault(row.step, []).append(row)

    def rows(self) -> list[Row]:
        """All rows, by attempt and step."""
        rows = sorted(self._rows, key=lambda row: (row.attempt, row.step))
        if rows and rows[0].attempt < 0:
            numbers = {attempt: place for place, attempt in enumerate(sorted({row.attempt for row in rows}))}
            for row in rows:
                row.attempt = numbers[row.attempt]
        return rows

    def add(self, kind: str, records: Sequence[Step]) -> None:
        """Join one more source. If it contradicts the rows at more steps than it agrees with, it is another run's."""
        exact = all(record.exact for record in records)
        trusted = _trust(kind) > self.trust
        own = [Row.of(step) for step in sequence(records)]
        finder = _Finder(self._rows, self._of_step, exact)
        found = [finder.find(row) for row in own]
        agreeing = sum(match is not None for match in found)
        conflicts = sum(match is None and row.step in self._of_step for row, match in zip(own, found, strict=True))
        per_process = kind in _FILE_PER_PROCESS
        if conflicts > agreeing or (per_process and not agreeing and _has_loss(own)):
            self.add_separate_run(own, after=kind == "console" or (per_process and self._is_later(own, kind)))
            return
        self._sources += 1
        for row, match in zip(own, found, strict=True):
            if match is not None:
                same_clock = self._clocks.setdefault((kind, match.attempt), self._sources) == self._sources
                _fill(match, row, trusted, same_clock)
        self._insert(own, found)

    def add_separate_run(self, own: list[Row], *, after: bool) -> None:
        """Add another run's or another process's rows as attempts, after or before the known ones."""
        attempts = [row.attempt for row in self._rows]
        offset = max(attempts) + 1 if after else min(attempts) - 1 - own[-1].attempt
        for row in own:
            row.attempt += offset
            self._keep(row)

    def _is_later(self, own: list[Row], kind: str) -> bool:
        """Whether another file's rows come after the known ones: by time, else by the file's name, else by step."""
        times = [row.time for row in self._rows if row.time is not None]
        first, last = own[0].time, own[-1].time
        if times and first is not None and last is not None and (first > max(times) or last < min(times)):
            return first > max(times)
        if kind == self._kind:
            return own[0].where.file > max(row.where.file for row in self._rows)
        return own[0].step > self._rows[-1].step

    def _insert(self, own: list[Row], found: list[Row | None]) -> None:
        """Steps that only this source has join the attempt of the row before them (at the beginning, of the row after)."""
        near = next((match for match in found if match is not None), None)
        attempt = near.attempt if near else self._rows[-1].attempt
        for row, match in zip(own, found, strict=True):
            if match is not None:
                attempt = match.attempt
            elif not any(known.attempt == attempt for known in self._of_step.get(row.step, ())):
                row.attempt = attempt
                self._keep(row)

    def _keep(self, row: Row) -> None:
        self._rows.append(row)
        self._of_step.setdefault(row.step, []).append(row)


class _Finder:
    """Finds the row of the table that a source's row belongs to: the same step and values, or for an inferred step the same values."""

    def __init__(self, rows: list[Row], of_step: dict[int, list[Row]], exact: bool) -> None:
        self._rows, self._of_step, self._exact = list(rows), of_step, exact
        self._place = 0

    def find(self, row: Row) -> Row | None:
        candidates = self._of_step.get(row.step, ())
        for candidate in reversed(candidates):
            if _same_record(candidate.metrics, row.metrics):
                return candidate
        if not self._exact and (later := self._same_values_later(row)) is not None:
            return later
        return next((candidate for candidate in reversed(candidates) if _same_record(candidate.metrics, row.metrics) is None), None)

    def _same_values_later(self, row: Row) -> Row | None:
        for place in range(self._place, min(self._place + _MAX_LOOKAHEAD, len(self._rows))):
            candidate = self._rows[place]
            if _same_record(candidate.metrics, row.metrics) and _same_epoch(candidate.metrics, row.metrics):
                self._place = place
                return candidate
        return None


def _same_epoch(a: dict[str, float], b: dict[str, float]) -> bool:
    return "epoch" not in a or "epoch" not in b or abs(a["epoch"] - b["epoch"]) <= _EPOCH_ROUNDING + _DIGITS * abs(a["epoch"])


def _fill(row: Row, other: Row, trusted: bool, same_clock: bool) -> None:
    if trusted:
        row.metrics.update(other.metrics)
    else:
        _add_missing(row.metrics, other.metrics)
    if same_clock:
        row.seconds = other.seconds if row.seconds is None else row.seconds
        row.time = other.time if row.time is None else row.time
    row.exact = row.exact or (other.exact and other.step == row.step)


def per_kind(files: Sequence[tuple[str, list[Step]]]) -> list[tuple[str, list[Step]]]:
    """One source for all parts of a trainer_log.jsonl. Every other file stays a source: another process or run may have written it."""
    out: list[tuple[str, list[Step]]] = []
    appended: dict[str, list[Step]] = {}
    for kind, records in files:
        if kind in ("trainer_state", "console", *_FILE_PER_PROCESS):
            out.append((kind, records))
        elif kind in appended:
            appended[kind] += records
        else:
            appended[kind] = records
            out.append((kind, records))
    return out
