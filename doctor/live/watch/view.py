"""`lfdoctor watch PATH`: what a run's files tell right now; read again when they grow, on whatever machine they can be seen."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from doctor import plugins
from doctor.core.run import Run, Series
from doctor.detectors.registry import DETECTORS
from doctor.diagnosis import causes
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.pipeline import feed
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.planner.plan import Plan
from doctor.readers import reading
from doctor.readers.discovery import Skipped, natural_sort_key, walk
from doctor.report.build import Diagnosis, build
from doctor.report.model import FindingView
from doctor.report.status import run_status
from doctor.rulebook import loader

RECENT = 100
"""The step time, and from it the time that is left, comes from so many of the last records of the present process."""
SHARE = 0.1
"""At most so much of its time the watcher reads."""
QUIET_SECONDS = 120.0
"""A run whose files have not grown for so long is no longer called running."""
CURVES = ("loss", "eval_loss", "grad_norm", "reward")


class Memory(msgspec.Struct, frozen=True):
    """One memory that can run out, GiB: used now, at most so far, of how much."""

    name: str
    used: float
    peak: float
    capacity: float | None


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment. Times in seconds; `quiet` since its files grew last; None where nothing tells."""

    path: str
    attempt: str | None = None
    status: str = "unknown"
    step: int | None = None
    planned: int | None = None
    epoch: float | None = None
    quiet: float = 0.0
    step_seconds: float | None = None
    left: float | None = None
    tokens_per_second: float | None = None
    learning_rate: float | None = None
    curves: dict[str, tuple[list[int], list[float]]] = {}
    memory: list[Memory] = []
    findings: list[FindingView] = []


class Watched:
    """A run folder, a folder of `lfdoctor run` (with --heal its newest attempt), or one file."""

    def __init__(self, path: Path, lang: str = "en") -> None:
        self.path, self.lang = path, lang
        self._seen: list[tuple[str, int, int]] = []
        self._frame: Frame | None = None
        self._next = 0.0

    def frame(self) -> Frame:
        """The run as it stands. Raises DoctorError (3) while nothing of it can be read."""
        root = _newest_attempt(self.path)
        stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path in _files(root) if (stat := _stat(path))]
        grown = time.time() - max((mtime for _, _, mtime in stats), default=0) / 1e9 if stats else 0.0
        now = time.monotonic()
        if self._frame is None or (stats != self._seen and now >= self._next):
            self._frame, self._seen = self._read(root), stats
            self._next = time.monotonic() + (time.monotonic() - now) / SHARE
        return _aged(self._frame, max(0.0, grown))

    def _read(self, root: Path) -> Frame:
        added = plugins.load()
        detectors = {**added.detectors, **DETECTORS}
        book = loader.load(added.rules, detectors=detectors if added.rules else None)
        engine = Engine(book.rules, detectors)
        feed(engine, reading.read([root], literals=engine.literals, readers=(*reading.READERS, *added.readers)).batches())
        run = engine.run
        judged = causes.assign_roles(engine.findings())
        nothing = Plan(tuple(() for _ in judged))
        status = run_status(run, judged)
        view = build(
            Diagnosis(path=str(self.path), run=run, ranked=judged, plan=nothing, status=status, verdict="undecided"), book, self.lang
        )
        seconds, steps = step_seconds(run.seconds), view.run.steps
        ended = view.run.status in ("completed", "ended_early", "failed", "interrupted")
        known = seconds is not None and steps.planned is not None and steps.last is not None and not ended
        return Frame(
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
            curves={name: (list(one.steps), list(one.values)) for name in CURVES if (one := run.series.get(name))},
            memory=_memory(run),
            findings=[one for one in view.findings if one.severity != "note" and one.role != "consequence"],
        )


def step_seconds(series: Series) -> float | None:
    """Seconds a step, pauses for evaluation and saving included, over the last records of the present process.

    A resumed run's clock starts anew while its steps go on: what lies before the jump does not count, and neither does the step at which it
    went on, for the clock has no reading there.
    """
    steps, seconds = series.steps[-RECENT - 1 :], series.values[-RECENT - 1 :]
    first = len(steps) - 1
    while first > 0 and steps[first - 1] < steps[first] and seconds[first - 1] <= seconds[first]:
        first -= 1
    if first >= len(steps) - 1 or first < 0:
        return None
    return (seconds[-1] - seconds[first]) / (steps[-1] - steps[first]) or None


def _tokens_per_second(run: Run) -> float | None:
    """Tokens of all ranks, from the counter of two recent records and the step time."""
    total, seconds = run.series.get("total_tokens"), step_seconds(run.seconds)
    if total is None or len(total) < 2 or not seconds:
        return None
    first = max(0, len(total) - RECENT)
    steps, tokens = total.steps[-1] - total.steps[first], total.values[-1] - total.values[first]
    return tokens / (steps * seconds) if steps > 0 and tokens > 0 else None


def _memory(run: Run) -> list[Memory]:
    """Cards, then the container's or the machine's memory."""
    out = []
    for name in sorted(run.samples, key=natural_sort_key):
        found = re.fullmatch(r"(gpu\.\d+)\.used_gib|(cgroup)\.used_gib", name)
        if found:
            total = run.samples.get(f"{found[1]}.total_gib" if found[1] else "cgroup.limit_gib")
            out.append(_of(run.samples[name], (found[1] or "container").replace(".", " "), total))
    available, total = run.samples.get("host.available_gib"), run.samples.get("host.total_gib")
    if available and total and len(available) == len(total):
        used = [whole - free for whole, free in zip(total.values, available.values, strict=True)]
        out.append(Memory("host", used[-1], max(used), total.values[-1]))
    told = run.series.get("vram_reserved_gib") or run.series.get("vram_reserved")
    if told and not any(one.name.startswith("gpu") for one in out):
        card = run.facts.get("gpu.total_gib")
        out.append(Memory("gpu", told.values[-1], max(told.values), float(card) if isinstance(card, int | float) else None))
    return out


def _of(series: Series, name: str, total: Series | None) -> Memory:
    return Memory(name, series.values[-1], max(series.values), total.values[-1] if total else None)


def _last(run: Run, name: str) -> float | None:
    series = run.series.get(name)
    return series.values[-1] if series and math.isfinite(series.values[-1]) else None


def _aged(frame: Frame, quiet: float) -> Frame:
    """The frame with the time since the files grew: the forecast counts on; quiet for long is not running."""
    running = frame.status == "unknown" and frame.step is not None and quiet < QUIET_SECONDS
    left = max(0.0, frame.left - quiet) if frame.left is not None else None
    return msgspec.structs.replace(frame, quiet=quiet, left=left, status="running" if running else frame.status)


def _newest_attempt(path: Path) -> Path:
    attempts = [one for one in path.glob("attempt-*") if one.is_dir()] if path.is_dir() else []
    return max(attempts, key=lambda one: natural_sort_key(one.name), default=path)


def _files(root: Path) -> Sequence[Path]:
    if not root.exists():
        raise DoctorError(f"{root}: no such file or folder", NOTHING_TO_READ)
    return list(walk(root, Skipped())) if root.is_dir() else [root]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
