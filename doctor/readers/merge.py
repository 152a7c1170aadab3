"""Several witnesses of one step become one `Step`: joined field by field, repeats dropped, every restart an attempt of its own.

Fields are trusted in a fixed order: trainer_state, then TensorBoard, then our journal, then trainer_log, then the console. The
shape (which attempt reached which step) is taken from the file that is only ever appended to, trainer_log, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from doctor.core.events import Step, Where

TRUST = ("console", "trainer_log", "journal", "swanlab", "wandb", "tensorboard", "trainer_state")
"""Least trusted first; a kind that is not listed is trusted like the console."""
PRIMARY_ORDER = ("trainer_log", "journal", "trainer_state", "tensorboard", "wandb", "swanlab", "console")
"""The first kind of these that a run left decides which attempts there were."""

_TELLING = ("loss", "eval_loss", "reward", "predict_loss")
_RECENT = 64
_AHEAD = 200
"""A console record whose step had to be worked out is looked for among so many later rows."""


class Row(msgspec.Struct, gc=False):
    """One step of one attempt while it is being joined with what other witnesses say of it."""

    step: int
    attempt: int
    metrics: dict[str, float]
    where: Where
    seconds: float | None
    time: float | None
    exact: bool

    @classmethod
    def of(cls, step: Step) -> Row:
        """What one witness says."""
        return cls(step.step, step.attempt, step.metrics, step.where, step.seconds, step.time, step.exact)

    def event(self) -> Step:
        """The finished event."""
        return Step(
            where=self.where, attempt=self.attempt, time=self.time, step=self.step, metrics=self.metrics, seconds=self.seconds,
            exact=self.exact,
        )  # fmt: skip


def sequence(records: Iterable[Step]) -> Iterator[Step]:
    """One witness's records in constant memory: repeats dropped, records of one step joined, attempts numbered from 0."""
    sequencer = Sequencer()
    for record in records:
        if record.metrics and (step := sequencer.feed(record)) is not None:
            yield step
    if sequencer.held is not None:
        yield sequencer.held


class Sequencer:
    """Holds the latest step until it is over; knows the steps just before it."""

    def __init__(self) -> None:
        self.held: Step | None = None
        self.attempt = 0
        self._recent: dict[int, dict[str, float]] = {}
        self._seconds: float | None = None

    def feed(self, record: Step) -> Step | None:
        """Takes a record; returns a step that no later record can change."""
        held = self.held
        if held is None or (record.step > held.step and not self._went_back(record)):
            return self._next(record)
        known = held.metrics if record.step == held.step else self._known(record.step)
        if known is not None:
            verdict = _compare(known, record.metrics)
            if verdict is None and record.step == held.step:
                held.metrics.update({name: value for name, value in record.metrics.items() if name not in held.metrics})
                return None
            if verdict or (not self._restarted(record) and (record.step == held.step or record.seconds is not None)):
                known.update({name: value for name, value in record.metrics.items() if name not in known})
                return None
        self.attempt += 1
        self._recent.clear()
        return self._next(record)

    def feed_all(self, records: Sequence[Step]) -> list[Step]:
        """As `feed` for each of some records that all have metrics, of rising steps and by a clock that does not go back."""
        before, first = self.held, records[0]
        if self.attempt or before is None or first.step <= before.step or self._went_back(first):
            return [step for record in records if (step := self.feed(record)) is not None]
        self.held = records[-1]
        self._remember({record.step: record.metrics for record in records[-_RECENT:]})
        self._seconds = self.held.seconds
        return [before, *records[:-1]]

    def _restarted(self, record: Step) -> bool:
        """A process began anew for certain: its clock did, or its file."""
        return self._went_back(record) or (self.held is not None and record.where.file != self.held.where.file)

    def _went_back(self, record: Step) -> bool:
        return record.seconds is not None and self._seconds is not None and record.seconds + 1 < self._seconds

    def _next(self, record: Step) -> Step | None:
        done = self.held
        self.held = record if record.attempt == self.attempt else msgspec.structs.replace(record, attempt=self.attempt)
        self._remember({record.step: record.metrics})
        self._seconds = record.seconds
        return done

    def _remember(self, steps: dict[int, dict[str, float]]) -> None:
        if len(self._recent) >= 2 * _RECENT:
            self._recent = dict(list(self._recent.items())[-_RECENT:])
        self._recent.update(steps)

    def _known(self, step: int) -> dict[str, float] | None:
        """The metrics of a step that is one of the last few."""
        return self._recent[step] if step in list(self._recent)[-_RECENT:] else None


def _compare(a: dict[str, float], b: dict[str, float]) -> bool | None:
    """Whether two sets of metrics tell of the same thing; None where they have nothing telling in common."""
    verdict = None
    for name in _TELLING:
        if name in a and name in b:
            if not close(a[name], b[name]):
                return False
            verdict = True
    return verdict


def close(a: float, b: float) -> bool:
    """Equal up to what consoles round away: four decimals (transformers 4) or four digits (transformers 5)."""
    return a == b or abs(a - b) <= 6e-5 + 6e-4 * abs(b) or (a != a and b != b)


def join(witnesses: Sequence[tuple[str, Sequence[Step]]]) -> Iterator[Step]:
    """All witnesses of one run, each (kind, its records in file order), as steps by attempt and step."""
    ordered = sorted((one for one in witnesses if any(record.metrics for record in one[1])), key=_spine_order)
    if not ordered:
        return iter(())
    table = Table(ordered[0])
    rest = sorted(ordered[1:], key=lambda one: abs(_trust(one[0]) - table.trust))
    for kind, records in rest:
        table.add(kind, records)
    return (row.event() for row in table.rows())


def _spine_order(source: tuple[str, Sequence[Step]]) -> tuple[int, int]:
    return (PRIMARY_ORDER.index(source[0]) if source[0] in PRIMARY_ORDER else len(PRIMARY_ORDER), -len(source[1]))


def _trust(kind: str) -> int:
    return TRUST.index(kind) if kind in TRUST else 0


class Table:
    """The rows joined so far: the spine's, and what other witnesses add."""

    def __init__(self, spine: tuple[str, Sequence[Step]]) -> None:
        self.trust = _trust(spine[0])
        self._rows = [Row.of(step) for step in sequence(spine[1])]
        self._of_step: dict[int, list[Row]] = {}
        for row in self._rows:
            self._of_step.setdefault(row.step, []).append(row)
        self._before = 0

    def rows(self) -> list[Row]:
        """All rows, by attempt and step."""
        rows = sorted(self._rows, key=lambda row: (row.attempt, row.step))
        if rows and rows[0].attempt < 0:
            numbers = {attempt: place for place, attempt in enumerate(sorted({row.attempt for row in rows}))}
            for row in rows:
                row.attempt = numbers[row.attempt]
        return rows

    def add(self, kind: str, records: Sequence[Step]) -> None:
        """Joins one more witness. One that contradicts the rows at more steps than it agrees with them is another run's."""
        exact = all(record.exact for record in records)
        trusted = _trust(kind) > self.trust
        own = [Row.of(step) for step in sequence(records)]
        finder = _Finder(self._rows, self._of_step, exact)
        found = [finder.find(row) for row in own]
        agreeing = sum(match is not None for match in found)
        conflicts = sum(match is None and row.step in self._of_step for row, match in zip(own, found, strict=True))
        if conflicts > agreeing:
            self.add_separate_run(own, kind)
            return
        for row, match in zip(own, found, strict=True):
            if match is not None:
                _fill(match, row, trusted)
        self._insert(own, found)

    def add_separate_run(self, own: list[Row], kind: str) -> None:
        """Another run: a checkpoint or event file that an earlier run left stands before, a further console after."""
        attempts = [row.attempt for row in self._rows]
        offset = max(attempts) + 1 if kind == "console" else min(attempts) - 1 - own[-1].attempt
        for row in own:
            row.attempt += offset
            self._keep(row)

    def _insert(self, own: list[Row], found: list[Row | None]) -> None:
        """Steps that only this witness saw join the attempt of the row before them (of the row after, at the beginning)."""
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
    """Finds the row that a witness's row tells of: the same step with the same figures; if the step is a guess, the same figures soon."""

    def __init__(self, rows: list[Row], of_step: dict[int, list[Row]], exact: bool) -> None:
        self._rows, self._of_step, self._exact = list(rows), of_step, exact
        self._place = 0

    def find(self, row: Row) -> Row | None:
        candidates = self._of_step.get(row.step, ())
        for candidate in reversed(candidates):
            if _compare(candidate.metrics, row.metrics):
                return candidate
        if not self._exact and (ahead := self._ahead(row)) is not None:
            return ahead
        return next((one for one in reversed(candidates) if _compare(one.metrics, row.metrics) is None), None)

    def _ahead(self, row: Row) -> Row | None:
        for place in range(self._place, min(self._place + _AHEAD, len(self._rows))):
            candidate = self._rows[place]
            if _compare(candidate.metrics, row.metrics) and _same_epoch(candidate.metrics, row.metrics):
                self._place = place
                return candidate
        return None


def _same_epoch(a: dict[str, float], b: dict[str, float]) -> bool:
    return "epoch" not in a or "epoch" not in b or abs(a["epoch"] - b["epoch"]) <= 0.0051 + 6e-4 * abs(a["epoch"])


def _fill(row: Row, other: Row, trusted: bool) -> None:
    if trusted:
        row.metrics.update(other.metrics)
    else:
        row.metrics.update({name: value for name, value in other.metrics.items() if name not in row.metrics})
    row.seconds = other.seconds if row.seconds is None else row.seconds
    row.time = other.time if row.time is None else row.time
    row.exact = row.exact or (other.exact and other.step == row.step)


def per_witness(files: Sequence[tuple[str, list[Step]]]) -> list[tuple[str, list[Step]]]:
    """One witness a kind for logs that follow one another; copies of the state in checkpoints stay witnesses of their own."""
    out: list[tuple[str, list[Step]]] = []
    appended: dict[str, list[Step]] = {}
    for kind, records in files:
        if kind in ("trainer_state", "console"):
            out.append((kind, records))
        elif kind in appended:
            appended[kind] += records
        else:
            appended[kind] = records
            out.append((kind, records))
    return out
