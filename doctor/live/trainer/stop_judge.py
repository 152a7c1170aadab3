"""Decides inside the training whether it is lost and may be stopped (`--stop-on-divergence`, `--heal`)."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from doctor.core.events import Step, Where
from doctor.core.series import median
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.tools import Tools
from doctor.live.trainer.monitor import title
from doctor.rulebook.model import Rule

STOPPING_SYMPTOMS = ("divergence", "nonfinite")
"""Symptoms of an error that no later step repairs."""
ORDERED_DATA = ("disable_shuffling", "streaming")
"""Options of LLaMA-Factory under which the data arrive in the order of the files: the loss then jumps where the data change."""
ORDERED_SAMPLING = ("sequential", "group_by_length")
"""Values of transformers' `train_sampling_strategy` with the same effect."""
WINDOW = 11
"""Logs whose level decides; `hold` of the divergence rules."""
LEAST = 2 * WINDOW
"""Logs after a jump before it may stop a run: over 22 a fall of 1 % a log is significant with noise of 8 %; over 11 every second
one is missed."""
TREND_WINDOW = 3 * WINDOW
"""Logs whose trend decides, where the jump is that long ago."""
TREND_Z = 1.645
"""One-sided 5 % of the Mann-Kendall trend test."""
MIN_FALL = 0.05
"""Share of the rise that the loss must lose within the window to count as falling: at this speed it is back within 220 logs."""
RECOVERED_SHARE = 0.5
"""A level that has lost half of the rise is no divergence: new data often keep a somewhat higher loss."""
CLOSED = math.log(1.3) / 2
"""Half of the divergence rules' `ratio`: below, their detector closes the episode."""
LOST = math.log(1.5)
"""A level that is less above the best one may be a swing of the data: the report tells it, but no run is stopped for it. `short_ratio` of
the divergence rules."""
JUMP_TOLERANCE = 2
"""Logs between the jumps of two attempts that count as the same step."""
JUMPS_VARIABLE = "LFDOCTOR_KNOWN_JUMPS"
"""Steps, separated by commas, at which earlier attempts with another learning rate diverged; set by the healer."""


class Pending(NamedTuple):
    """A divergence that has not stopped the run yet: its title, first step, the best loss before it, the highest in it."""

    title: str
    onset: int
    baseline: float
    highest: float


class StopJudge:
    """Looks at logged metrics only, in the training thread: the same logs give the same answer on every rank.

    A non-finite loss stops at once. A divergence does not stop
    - while the loss is falling again (it may be new data that the model is learning),
    - if the config says that the data are not shuffled,
    - if an earlier attempt with another learning rate jumped at the same step: then it is the data.
    """

    def __init__(self, rules: Iterable[Rule] | None = None, *, config: Mapping[str, Any] | None = None) -> None:
        tools = Tools.load() if rules is None else None
        known = tools.book.rules if tools is not None else list(rules or ())
        symptoms = STOPPING_SYMPTOMS[1:] if is_ordered(config or {}) else STOPPING_SYMPTOMS
        wanted = [rule for rule in known if rule.severity == "error" and rule.symptom in symptoms]
        self._rules = {rule.id: rule for rule in wanted}
        self._engine = Engine(wanted, tools.detectors) if tools is not None else Engine(wanted)
        self._losses: deque[tuple[int, float]] = deque(maxlen=TREND_WINDOW)
        self._pending: Pending | None = None
        self._known_jumps = [int(step) for step in os.environ.get(JUMPS_VARIABLE, "").split(",") if step.strip().isdigit()]

    def remember(self, step: int, metrics: dict[str, float]) -> None:
        """A log from before a resumed checkpoint: it sets the level but stops nothing."""
        self._look(step, metrics, history=True)
        self._pending = None

    def step(self, step: int, metrics: dict[str, float]) -> str | None:
        """The title of the rule that says this run is lost, or None."""
        return self._look(step, metrics, history=False)

    def _look(self, step: int, metrics: dict[str, float], *, history: bool) -> str | None:
        loss = metrics.get("loss")
        if loss is not None and math.isfinite(loss):
            self._losses.append((step, loss))
        # clock and memory differ between ranks
        shared = {name: value for name, value in metrics.items() if not name.endswith(("_seconds", "_gib")) and "alloc" not in name}
        event = Step(where=Where("the log", step=step), step=step, metrics=shared, history=history)
        for name, match in self._engine.feed(event):
            rule = self._rules[name]
            if rule.symptom != "divergence":
                return title(rule, match.facts)
            onset = int(match.facts.get("step", step))
            if self._pending is None and not match.closes and not self._jumped_before(onset):
                highest = max(value for logged, value in self._losses if logged >= onset)
                self._pending = Pending(title(rule, match.facts), onset, float(match.facts.get("baseline", 0.0)), highest)
        return self._decide(self._pending) if self._pending is not None and loss is not None else None

    def _decide(self, pending: Pending) -> str | None:
        """Whether a pending divergence stops the run now, or is over."""
        levels = [_level(loss) for step, loss in self._losses if step >= pending.onset]
        pending = pending._replace(highest=max(pending.highest, self._losses[-1][1]))
        base = _level(pending.baseline)
        above, rise = median(levels[-WINDOW:]) - base, _level(pending.highest) - base
        self._pending = pending if above >= CLOSED else None
        if len(levels) < LEAST or above < max(LOST, RECOVERED_SHARE * rise):
            return None
        after_peak = levels[levels.index(max(levels)) :]
        falls = any(is_falling(part, MIN_FALL * rise) for part in (levels, after_peak))
        return None if falls else pending.title

    def _jumped_before(self, onset: int) -> bool:
        steps = [step for step, _ in self._losses]
        interval = max(steps[-1] - steps[-2], 1) if len(steps) > 1 else 1
        return any(abs(onset - jump) <= JUMP_TOLERANCE * interval for jump in self._known_jumps)


def _level(loss: float) -> float:
    """log(loss + 0.05), as in doctor.detectors.divergence."""
    return math.log(max(loss, 0.0) + 0.05)


def is_ordered(config: Mapping[str, Any]) -> bool:
    """Whether the effective options say that the data are not shuffled as a whole."""
    return any(config.get(key) is True for key in ORDERED_DATA) or str(config.get("train_sampling_strategy")) in ORDERED_SAMPLING


def is_falling(values: Sequence[float], least: float) -> bool:
    """Whether a series falls significantly (Mann-Kendall 1945, normal approximation, one-sided 5 %) and by at least `least`."""
    n = len(values)
    if n < 4:  # fewer values cannot be significant
        return False
    falls = sum((a > b) - (a < b) for a, b in combinations(values, 2))
    z = (falls - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return z >= TREND_Z and values[0] - values[-1] >= least
