"""`lfdoctor watch PATH`: the state of a run from its files, read again when they grow, on any machine that can see them."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.run import Run
from doctor.core.series import Series
from doctor.diagnosis import causes
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.feeding import feed
from doctor.diagnosis.tools import Tools
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.live.watch.state import ENDED, Signs, State, signs_of, state_of
from doctor.planner.plan import Plan
from doctor.readers import reading
from doctor.readers.registry import READERS
from doctor.readers.walk import Skipped, natural_sort_key, walk
from doctor.report.build import Diagnosis, build
from doctor.report.model import FindingView, Status, VitalsView
from doctor.report.status import run_status

RECENT = 100
"""Last records of the current process from which the step time and the time left are computed."""
READ_SHARE = 0.1
"""Largest share of its time that the watcher spends reading."""
CURVES = ("loss", "eval_loss", "grad_norm", "reward")


class MemoryGauge(msgspec.Struct, frozen=True):
    """A memory that can run out, in GiB: used now, peak so far, capacity."""

    name: str
    used: float
    peak: float
    capacity: float | None


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment. Times in seconds; `quiet`: since its files last grew; None: unknown."""

    path: str
    attempt: str | None = None
    status: Status = "unknown"
    state: State = "unknown"
    step: int | None = None
    planned: int | None = None
    epoch: float | None = None
    quiet: float = 0.0
    step_seconds: float | None = None
    left: float | None = None
    tokens_per_second: float | None = None
    learning_rate: float | None = None
    curves: dict[str, tuple[list[int], list[float]]] = {}
    memory: list[MemoryGauge] = []
    vitals: VitalsView | None = None
    findings: list[FindingView] = []


class Watched:
    """A run folder, a folder of `lfdoctor run` (with --heal its newest attempt), or one file."""

    def __init__(self, path: Path, lang: str = "en") -> None:
        self.path, self.lang = path, lang
        self._seen: list[tuple[str, int, int]] = []
        self._state: RunState | None = None
        self._facts: dict[str, Any] = {}
        self._pause = 0.0
        self._next = 0.0

    def state(self) -> RunState:
        """The run as it stands. Raises DoctorError (3) while nothing of it can be read."""
        root = _newest_attempt(self.path)
        stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path in _files(root) if (stat := _stat(path))]
        grown = time.time() - max((mtime for _, _, mtime in stats), default=0) / 1e9 if stats else 0.0
        now = time.monotonic()
        if self._state is None or (stats != self._seen and now >= self._next):
            self._state, self._seen = self._read(root), stats
            self._next = time.monotonic() + (time.monotonic() - now) / READ_SHARE
        return self._aged(self._state, max(0.0, grown), root)

    def _aged(self, state: RunState, quiet: float, root: Path) -> RunState:
        """The state now: the time left counts down, and a run that is silent for long is no longer called training."""
        if state.status in ENDED:
            return msgspec.structs.replace(state, quiet=quiet, state=ENDED[state.status])
        folder = root if root.is_dir() else root.parent
        signs = max(map(signs_of, folder.glob("lfdoctor.jsonl")), key=lambda one: one.last or 0.0, default=Signs())
        journals = re.compile(r"lfdoctor[\w.-]*\.(?:jsonl|txt)")
        printed = max((mtime / 1e9 for path, _, mtime in self._seen if not journals.fullmatch(Path(path).name)), default=None)
        if printed is None and signs.last is None:  # nothing but a journal without a step yet
            printed = time.time() - quiet
        signs = msgspec.structs.replace(signs, longest=max(signs.longest, self._pause))
        doing = state_of(state.status, self._facts, state.step, signs, printed, time.time())
        running = state.status == "unknown" and doing not in ("unknown", "stalled")
        left = max(0.0, state.left - quiet) if state.left is not None else None
        return msgspec.structs.replace(
            state, quiet=quiet, left=left, state=doing, status="running" if running and state.step is not None else state.status
        )

    def _read(self, root: Path) -> RunState:
        tools = Tools.load()
        engine = Engine(tools.book.rules, tools.detectors)
        seen = LastEvents()
        feed(engine, reading.read([root], literals=engine.literals, readers=(*READERS, *tools.added.readers)).batches(), seen)
        run = engine.run
        self._facts = dict(run.facts)
        self._pause = max((later - earlier for earlier, later in pairwise(run.seconds.values[-RECENT:])), default=0.0)
        judged = causes.assign_roles(engine.findings())
        nothing = Plan(tuple(() for _ in judged))
        status = run_status(run, judged, exact_steps=seen.exact_steps)
        diagnosis = Diagnosis(path=str(self.path), run=run, ranked=judged, plan=nothing, status=status, verdict="undecided")
        view = build(diagnosis, tools.book, self.lang)
        seconds, steps = step_seconds(run.seconds), view.run.steps
        ended = view.run.status in ("completed", "ended_early", "failed", "interrupted")
        known = seconds is not None and steps.planned is not None and steps.last is not None and not ended
        return RunState(
            path=view.run.path,
            attempt=root.name if root != self.path else None,
            status=view.run.status,
            step=steps.last,
            planned=steps.planned,
            epoch=_last(run, "epoch"),
            step_seconds=seconds,
            left=(seconds or 0.0) * max(0, (steps.planned or 0) - (steps.last or 0)) if known else None,
            tokens_per_second=_tokens_per_second(run),
            learning_rate=_last(run, "learning_rate"),
            curves={name: (list(series.steps), list(series.values)) for name in CURVES if (series := run.series.get(name))},
            memory=_memory(run),
            vitals=view.run.vitals,
            findings=[finding for finding in view.findings if finding.severity != "note" and finding.role != "consequence"],
        )


def step_seconds(series: Series) -> float | None:
    """Seconds per step, evaluation and saving included, over the last records of the current process.

    The clock of a resumed run starts from zero while its steps continue: records before the jump do not count, nor does the step of the
    jump, at which the clock has no reading.
    """
    steps, seconds = series.steps[-RECENT - 1 :], series.values[-RECENT - 1 :]
    first = len(steps) - 1
    while first > 0 and steps[first - 1] < steps[first] and seconds[first - 1] <= seconds[first]:
        first -= 1
    if first >= len(steps) - 1 or first < 0:
        return None
    return (seconds[-1] - seconds[first]) / (steps[-1] - steps[first]) or None


def _tokens_per_second(run: Run) -> float | None:
    """Tokens per second of all ranks, from the counter in two recent records and the step time."""
    total, seconds = run.series.get("total_tokens"), step_seconds(run.seconds)
    if total is None or len(total) < 2 or not seconds:
        return None
    first = max(0, len(total) - RECENT)
    steps, tokens = total.steps[-1] - total.steps[first], total.values[-1] - total.values[first]
    return tokens / (steps * seconds) if steps > 0 and tokens > 0 else None


def _memory(run: Run) -> list[MemoryGauge]:
    """GPUs, then the memory of the container or the machine."""
    out = []
    for name in sorted(run.samples, key=natural_sort_key):
        found = re.fullmatch(r"(gpu\.\d+)\.used_gib|(cgroup)\.used_gib", name)
        if found:
            total = run.samples.get(f"{found[1]}.total_gib" if found[1] else "cgroup.limit_gib")
            out.append(_of(run.samples[name], (found[1] or "container").replace(".", " "), total))
    available, total = run.samples.get("host.available_gib"), run.samples.get("host.total_gib")
    if available and total and len(available) == len(total):
        used = [whole - free for whole, free in zip(total.values, available.values, strict=True)]
        out.append(MemoryGauge("host", used[-1], max(used), total.values[-1]))
    reserved = run.series.get("vram_reserved_gib") or run.series.get("vram_reserved")
    if reserved and not any(gauge.name.startswith("gpu") for gauge in out):
        total_gib = run.facts.get("gpu.total_gib")
        capacity = float(total_gib) if isinstance(total_gib, int | float) else None
        out.append(MemoryGauge("gpu", reserved.values[-1], max(reserved.values), capacity))
    return out


def _of(series: Series, name: str, total: Series | None) -> MemoryGauge:
    return MemoryGauge(name, series.values[-1], max(series.values), total.values[-1] if total else None)


def _last(run: Run, name: str) -> float | None:
    series = run.series.get(name)
    return series.values[-1] if series and math.isfinite(series.values[-1]) else None


def _newest_attempt(path: Path) -> Path:
    attempts = [folder for folder in path.glob("attempt-*") if folder.is_dir()] if path.is_dir() else []
    return max(attempts, key=lambda folder: natural_sort_key(folder.name), default=path)


def _files(root: Path) -> Sequence[Path]:
    if not root.exists():
        raise DoctorError(f"{root}: no such file or folder", NOTHING_TO_READ)
    return list(walk(root, Skipped())) if root.is_dir() else [root]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
