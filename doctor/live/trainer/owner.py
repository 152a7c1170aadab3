"""Which DoctorCallback of this process records: of several, one. Shared by every copy of this package that the process has loaded
(`lfdoctor run` loads its own under a private name, the user may import another)."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

OWNERS: list[Any] = vars(sys).setdefault("_lfdoctor_owners", [])
"""At most one callback; a list, so that all copies see a change."""


def is_owner(callback: Any) -> bool:
    """Whether this callback records."""
    return bool(OWNERS) and OWNERS[0] is callback


def take_over(callback: Any) -> bool:
    """Make this callback the recording one unless another one is recording a training; whether it is now."""
    if not is_owner(callback) and not (OWNERS and OWNERS[0].training):
        OWNERS[:] = [callback]
    return is_owner(callback)


def training_begins(trainer: Any) -> None:
    """Hook before `Trainer.train`."""
    with contextlib.suppress(Exception):  # never into a training
        OWNERS[0].begins(trainer)


def process_crashed(error: BaseException) -> None:
    """Hook for an exception that leaves `Trainer.train` or the process."""
    with contextlib.suppress(Exception):  # never replace the user's exception
        OWNERS[0].crashed(error)


def never_raise(method: Callable[..., Any]) -> Callable[..., Any]:
    """An exception in one of our event methods switches the recorder off, is logged once, and goes no further."""

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.recorder is None or self.recorder.dead:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.recorder.fail(error)
            return None

    return guarded
