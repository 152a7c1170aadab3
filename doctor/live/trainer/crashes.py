"""Exceptions of a training process as events: what was raised, where, and in which phase."""

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
"""Innermost frames, exceptions of a chain, and characters of a message that are kept."""


def events_of(error: BaseException, rank: int) -> list[dict[str, Any]]:
    """One Crash event per exception of the chain, in the order in which Python prints them (the original one first)."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < _CHAIN:
        chain.append(current)
        current = current.__cause__ if current.__cause__ is not None or current.__suppress_context__ else current.__context__
    return [_event(each, number, rank) for number, each in enumerate(reversed(chain))]


def _event(error: BaseException, number: int, rank: int) -> dict[str, Any]:
    frames = [
        [frame.filename, frame.lineno, frame.name, (frame.line or "")[:500]]
        for frame in traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        if not frame.filename.endswith(("doctor/live/trainer/crashes.py", "doctor\\live\\trainer\\crashes.py"))
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
    except Exception:  # a __str__ of the user's may fail
        return "<no message>"


def is_no_crash(error: BaseException) -> bool:
    """A clean exit, or a launcher that only repeats that its child failed."""
    return (isinstance(error, SystemExit) and error.code in (0, None)) or type(error).__name__ in ("CalledProcessError", "ChildFailedError")


def watch_uncaught(report: Report) -> None:
    """Report every exception that ends the process, then call the previous excepthook."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report(error)
        before(kind, error, trace)

    sys.excepthook = hook


def watch_training(trainer: type, begin: Callable[[Any], None], report: Report) -> None:
    """Wrap `trainer.train`: call `begin` before it and `report` on an exception, which is re-raised unchanged. Once per class."""
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
