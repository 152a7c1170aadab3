"""What the injected hook does once a trainer's module has been imported: adds the callback to every trainer of this process."""

from __future__ import annotations

import functools
from typing import Any

from doctor.live.callback import DoctorCallback


def attach(module: Any) -> None:
    """To transformers.trainer, or to LLaMA-Factory's v1 callbacks. Raises AttributeError where such a module looks unlike any known one."""
    callback = _callback()
    if hasattr(module, "DEFAULT_CALLBACKS"):
        # transformers makes its callbacks from classes and shares none between trainers; ours is one per process
        module.DEFAULT_CALLBACKS.append(callback)
        callback.attach(module)
    else:
        _extend(module.CallbackHandler, callback)


@functools.cache
def _callback() -> DoctorCallback:
    return DoctorCallback()


def _extend(handler: Any, callback: DoctorCallback) -> None:
    init = handler.__init__

    @functools.wraps(init)
    def with_ours(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.callbacks.append(callback)

    handler.__init__ = with_ours
