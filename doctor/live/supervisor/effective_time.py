"""Effective training time ratio (ETTR): the share of a job's wall-clock time that was spent on training steps that count in the end.

As in Kokolis et al., "Revisiting Reliability in Large-Scale Machine Learning Research Clusters" (arXiv 2410.21680): productive run time
over the whole. Evaluations and saves within the training count as training; what was trained and then lost with a failure does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.report.time_spent import TimeView
from doctor.support.decoding import json_decoder

ALL = 1 << 60
"""Above any step: everything that was trained is kept."""
_decode = json_decoder(dict[str, Any]).decode
_STEP, _FACT = b'{"type":"Step"', b'{"type":"Fact","name":"saved_at_step"'


class Start(msgspec.Struct, frozen=True):
    """One process of the job, in seconds since the epoch.

    `trained` holds (step, seconds in the training loop when it was done); `loop` is when that loop began (None: it never did); `saved`
    is the last step with a checkpoint.
    """

    began: float
    ended: float
    loop: float | None = None
    trained: tuple[tuple[int, float], ...] = ()
    saved: int = 0

    @classmethod
    def read(cls, folder: Path, began: float, ended: float) -> Start:
        """From the journal that it left in `folder` between two times."""
        loop, saved, trained = None, 0, []
        for event in _events(folder):
            if event.get("type") == "Fact":
                saved = event["value"] if type(event.get("value")) is int else saved
                continue
            step, seconds, time = event.get("step"), event.get("seconds"), event.get("time")
            known = type(step) is int and isinstance(seconds, int | float) and isinstance(time, int | float)
            if known and began <= float(time or 0.0) <= ended + 1:
                loop = float(time) - float(seconds) if loop is None else loop  # type: ignore[arg-type]
                trained.append((int(step or 0), float(seconds or 0.0)))
        return cls(began, ended, loop, tuple(trained), saved)

    def useful(self, kept: int) -> float:
        """Seconds of the loop up to step `kept`."""
        return max((seconds for step, seconds in self.trained if step <= kept), default=0.0)


def effective_time(starts: Sequence[Start], continued: Sequence[int], kept: int) -> TimeView | None:
    """Where the time of a job went; None where no training step was seen.

    `continued` are the steps from which the later starts continued (0: from scratch), `kept` the last step of the last start that counts
    (ALL for a finished training, its last checkpoint for a failed one, 0 where what it trained is worthless).
    """
    if not any(start.trained for start in starts):
        return None
    whole = max(1e-9, starts[-1].ended - starts[0].began)
    useful = starting = trained = 0.0
    for place, start in enumerate(starts):
        limits = [*continued[place:], kept]
        last = max((seconds for _, seconds in start.trained), default=0.0)
        useful += start.useful(min(limits))
        trained += last
        starting += (start.loop if start.loop is not None else start.ended) - start.began
    again = max(0.0, trained - useful)
    rest = max(0.0, whole - useful - again - starting)
    return TimeView(
        wall_seconds=round(whole, 1),
        useful_seconds=round(useful, 1),
        ettr=round(min(1.0, useful / whole), 3),
        starting_seconds=round(starting, 1),
        lost_seconds=round(again, 1),
        other_seconds=round(rest, 1),
    )


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """Steps and saves of rank 0's journal, those that were rotated away first."""
    for name in ("lfdoctor.1.jsonl", "lfdoctor.jsonl"):
        with contextlib.suppress(OSError), (folder / name).open("rb") as file:
            for line in file:
                if line.startswith((_STEP, _FACT)):
                    with contextlib.suppress(msgspec.DecodeError):  # the last line of a killed process
                        yield _decode(line)
