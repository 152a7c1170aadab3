"""Exceptions of a training process as events: what was raised, where, and in which phase."""

from __future__ import annotations

import functools
import re
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

Report = Callable[[BaseException], None]

_PHASES = (
    (r"evaluate|evaluation_loop|prediction_step|eval_loop", "eval"),
    (r"predict|prediction_loop", "predict"),
    (r"_?save_checkpoint|_save|save_model|save_state|save_pretrained|_save_optimizer_and_scheduler", "save"),
    (
        r"from_pretrained|load_model|load_tokenizer|load_config|init_adapter|_load_from_checkpoint|create_ref_model|create_reward_model",
        "load",
    ),
    (
        r"get_dataset|_get_merged_dataset|_load_single_dataset|_get_preprocessed_dataset|preprocess_\w+|load_dataset|align_dataset",
        "tokenise",
    ),
    (r"training_step|_inner_training_loop|ppo_train|train", "train"),
    (r"get_train_args|_parse_train_args|read_args|_parse_args|get_ray_args", "start"),
)
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
        "phase": phase_of([frame[2] for frame in frames]),
        "chain": number,
    }


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_MESSAGE]
    except Exception:  # a __str__ of the user's may fail
        return "<no message>"


def phase_of(functions: list[Any]) -> str | None:
    """The phase of the innermost function that belongs to one."""
    for name in reversed(functions):
        for pattern, phase in _PHASES:
            if re.fullmatch(pattern, str(name)):
                return phase
    return None


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
