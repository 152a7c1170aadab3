"""A rank's own work in a step, before it waits for the others: where one rank is slow, only this tells which."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class RankWorkTimer:
    """Sums the wall time from a step's end to the next one's first forward (waiting for data, Python, other callbacks) and of the forward
    passes of the model inside torch's DistributedDataParallel, which begin after and end before its collectives.

    Only for DDP: under ZeRO-3 and FSDP a forward pass waits for the other ranks, too. On a GPU it is the host's time: a rank whose
    kernels alone are slower (heat, power) is told by its clocks instead.
    """

    def __init__(self, outer: Any, inner: Any) -> None:
        self._sum = 0.0
        self._since: float | None = None
        self._forward: float | None = None

        # plain functions: a model that is copied deeply must not take this object along
        def arrives(*_: Any) -> None:
            if self._since is not None:
                self._sum += time.perf_counter() - self._since
                self._since = None

        def begins(module: Any, *_: Any) -> None:
            self._forward = time.perf_counter() if module.training else None

        def ends(*_: Any) -> None:
            if self._forward is not None:
                self._sum += time.perf_counter() - self._forward
                self._forward = None

        self._handles: list[Callable[[], None]] = [
            outer.register_forward_pre_hook(arrives).remove,
            inner.register_forward_pre_hook(begins).remove,
            inner.register_forward_hook(ends).remove,
        ]

    @classmethod
    def of(cls, args: Any, trainer: Any) -> RankWorkTimer | None:
        """For a transformers Trainer whose model is wrapped by DDP and not compiled (a hook would break the graph); None for any other."""
        outer: Any = getattr(trainer, "model_wrapped", None)
        if type(outer).__name__ != "DistributedDataParallel" or getattr(args, "torch_compile", False):
            return None
        return cls(outer, outer.module)

    def step_begins(self, since: float) -> None:
        """The step's batches are there; the rank has been on its own since `since` (perf_counter)."""
        self._since = since

    def take(self) -> float:
        """Seconds since last asked."""
        taken, self._sum = self._sum, 0.0
        return taken

    def close(self) -> None:
        """Takes the hooks off."""
        while self._handles:
            self._handles.pop()()
