"""What a run is doing at this moment, or how it ended, from the newest lines of its journal, its console and its status."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.report.model import Status
from doctor.support.decoding import json_decoder
from doctor.support.files import end_of_file

State = Literal[
    "starting", "tokenising", "loading", "training", "evaluating", "predicting", "saving", "stalled",
    "finished", "stopped_early", "failed", "interrupted", "unknown",
]  # fmt: skip
ENDED: Mapping[Status, State] = {
    "completed": "finished",
    "ended_early": "stopped_early",
    "failed": "failed",
    "interrupted": "interrupted",
}
"""Status of a run that is over -> its state."""
OF_PHASE: Mapping[str, State] = {
    "start": "starting",
    "tokenise": "tokenising",
    "load": "loading",
    "train": "training",
    "eval": "evaluating",
    "predict": "predicting",
    "save": "saving",
    "export": "saving",
    "end": "saving",
}
"""Phase of the console's last line -> state."""
STALLED_SECONDS, STALLED_FACTOR = 120.0, 5.0
"""Without a sign of life for this long, and for this many times the longest pause so far, a run that had trained has stalled."""
BEFORE_THE_FIRST_STEP_SECONDS = 1800.0
"""Loading a large model from a network disk is silent for long, and no pause was seen yet; NCCL's default timeout times three."""
SAMPLES_SECONDS = 90.0
"""The recorder samples the machine at least every 30 s: without a sample for three times that, its process is gone."""
_TAIL = 1 << 18
_decode = json_decoder(dict[str, Any]).decode


class Signs(msgspec.Struct, frozen=True):
    """Of the newest process of a journal, seconds since the epoch: the last step or evaluation batch and which of the two it was, the
    longest pause between two of them, the last reading of the machine (which a hung training goes on giving).
    """

    last: float | None = None
    evaluates: bool = False
    longest: float = 0.0
    sample: float | None = None


def signs_of(journal: Path) -> Signs:
    """The signs in the newest part of a journal; none where it cannot be read."""
    times: list[float] = []
    sample, evaluates = None, False
    lines: list[bytes] = []
    with contextlib.suppress(OSError):
        lines = end_of_file(journal, _TAIL).split(b"\n")
    for line in lines:
        kind = next((kind for kind in ("Session", "Step", "Alive", "Sample") if line.startswith(b'{"type":"%s"' % kind.encode())), None)
        if kind == "Session":  # a pause before a restart is none of the training
            times.clear()
        if kind not in ("Step", "Alive", "Sample") or (time := _time(line)) is None:
            continue
        if kind == "Sample":
            sample = time
        else:
            times.append(time)
            evaluates = kind == "Alive"
    longest = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    return Signs(times[-1] if times else None, evaluates, longest, sample)


def _time(line: bytes) -> float | None:
    try:
        time = _decode(line).get("time")
    except msgspec.DecodeError:  # the last line may not be whole yet
        return None
    return float(time) if isinstance(time, int | float) else None


def state_of(status: Status, facts: Mapping[str, Any], step: int | None, signs: Signs, printed: float | None, now: float) -> State:
    """The state at `now`; `printed` is when a file that is no journal last grew (None: there is none).

    `stalled` is said only of a process that is seen to live; of one that left no sign at all the end is `unknown`.
    """
    if status in ENDED:
        return ENDED[status]
    signs_of_life = [time for time in (signs.last, printed) if time is not None]
    alive = signs.sample is not None and now - signs.sample < SAMPLES_SECONDS
    limit = max(STALLED_SECONDS, STALLED_FACTOR * signs.longest) if step else BEFORE_THE_FIRST_STEP_SECONDS
    if not signs_of_life or now - max(signs_of_life) > limit:
        return "stalled" if alive and signs_of_life else "unknown" if not alive else "starting"
    return _doing(facts, step, signs)


def _doing(facts: Mapping[str, Any], step: int | None, signs: Signs) -> State:
    phase = facts.get("console.last_phase")
    if signs.evaluates and phase in (None, "train"):
        return "evaluating"
    if phase is not None and not (phase in ("start", "tokenise", "load") and facts.get("run.started_training")):
        return OF_PHASE.get(str(phase), "training")
    return "training" if step or facts.get("run.started_training") else "starting"
