"""A rank's own work in a step, before it waits for the others: the only figure that tells which rank is slow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any


class ModuleHook:
    """A forward hook that calls a function of ours. Pickled or deep-copied with its module, it becomes a function that does nothing.

    The copy needs only the standard library, so a model saved whole loads where lfdoctor is not installed.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> None:
        self._function(*arguments)

    def __reduce__(self) -> Any:
        # nullcontext's __exit__ takes any arguments and returns None: torch then changes neither input nor output
        return getattr, (contextlib.nullcontext(), "__exit__")


class RankWorkTimer:
    """Wall time of a rank outside of collectives: from a step's end to the next forward (waiting for data, Python, other callbacks),
    plus the forward passes of the model inside DistributedDataParallel, which begin after and end before its collectives.

    DDP only: under ZeRO-3 and FSDP a forward pass waits for other ranks, too. On a GPU this is host time; a rank whose kernels are slow
    (heat, power) is found by its clocks instead.
    """

    def __init__(self, outer: Any, inner: Any) -> None:
        self._sum = 0.0
        self._step_since: float | None = None
        self._forward_since: float | None = None
        self._remove_hooks: list[Callable[[], None]] = [
            outer.register_forward_pre_hook(ModuleHook(self._arrives)).remove,
            inner.register_forward_pre_hook(ModuleHook(self._forward_begins)).remove,
            inner.register_forward_hook(ModuleHook(self._forward_ends)).remove,
        ]

    @classmethod
    def of(cls, args: Any, trainer: Any) -> RankWorkTimer | None:
        """For a transformers Trainer whose model is wrapped by DDP and not compiled (a hook would break the graph); else None."""
        outer: Any = getattr(trainer, "model_wrapped", None)
        if type(outer).__name__ != "DistributedDataParallel" or getattr(args, "torch_compile", False):
            return None
        return cls(outer, outer.module)

    def _arrives(self, *_: Any) -> None:
        if self._step_since is not None:
            self._sum += time.perf_counter() - self._step_since
            self._step_since = None

    def _forward_begins(self, module: Any, *_: Any) -> None:
        self._forward_since = time.perf_counter() if module.training else None

    def _forward_ends(self, *_: Any) -> None:
        if self._forward_since is not None:
            self._sum += time.perf_counter() - self._forward_since
            self._forward_since = None

    def step_begins(self, since: float) -> None:
        """The step's batches are there; the rank has worked on its own since `since` (perf_counter)."""
        self._step_since = since

    def take(self) -> float:
        """Seconds since the last call."""
        taken, self._sum = self._sum, 0.0
        return taken

    def close(self) -> None:
        """Remove the hooks."""
        while self._remove_hooks:
            self._remove_hooks.pop()()
