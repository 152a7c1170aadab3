"""Exceptions of a training process as events: what was raised, where, in which phase, and how full the card was."""

from __future__ import annotations

import functools
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from doctor.core.phases import phase_of

Report = Callable[[BaseException], None]

_FRAMES, _CHAIN, _MESSAGE = 200, 10, 20_000


def events_of(error: BaseException, rank: int) -> list[dict[str, Any]]:
    """One Crash event per exception of the chain, in the order in which Python prints them (the original one first)."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain and len(chain) < _CHAIN:
        chain.append(one)
        one = one.__cause__ if one.__cause__ is not None or one.__suppress_context__ else one.__context__
    return [_event(each, number, rank) for number, each in enumerate(reversed(chain))]


def _event(error: BaseException, number: int, rank: int) -> dict[str, Any]:
    frames = [
        [frame.filename, frame.lineno, frame.name, (frame.line or "")[:500]]
        for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        if not frame.filename.endswith(("doctor/live/trainer/crashes.py", "doctor\\live\\crashes.py"))
    ]
    name = (
        type(error).__qualname__
        if type(error).__module__ in ("builtins", "__main__")
        else f"{type(error).__module__}.{type(error).__qualname__}"
    )
    return {
        "type": "Crash",
        "time": time.time(),
        "rank": rank,
        "exception": name,
        "message": _text(error),
        "frames": frames,
        "phase": phase_of([str(frame[2]) for frame in frames]),
        "chain": number,
    }


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_MESSAGE]
    except Exception:  # an exception may be unable to tell itself
        return "<no message>"


def watch_uncaught(report: Report) -> None:
    """Tells of every exception that ends the process, then lets Python go on as it would have."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report(error)
        before(kind, error, trace)

    sys.excepthook = hook


def watch_training(trainer: type, begin: Callable[[Any], None], report: Report) -> None:
    """Wraps `trainer.train`: `begin` sees the trainer before, `report` every exception, which goes on unchanged. Once per class."""
    train = trainer.train  # type: ignore[attr-defined]
    if getattr(train, "_lfdoctor", False):
        return

    @functools.wraps(train)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        begin(self)
        try:
            return train(self, *args, **kwargs)
        except BaseException as error:
            report(error)
            raise

    watched._lfdoctor = True  # type: ignore[attr-defined]
    trainer.train = watched  # type: ignore[attr-defined]
