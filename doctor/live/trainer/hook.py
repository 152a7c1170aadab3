"""What the injected hook does once a trainer's module has been imported: adds the callback to every trainer of this process."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from doctor.config import versions
from doctor.live.trainer.callback import DoctorCallback

TRACE = {
    "2.8": ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE"),
    "": ("TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"),
}
"""Since which torch NCCL's flight recorder has which names (the older ones make newer ones warn)."""
ENTRIES = "2000"
"""torch's own default, from the version on in which the recorder is on by default."""


def attach(module: Any) -> None:
    """To transformers.trainer, or to LLaMA-Factory's v1 callbacks. Raises AttributeError where such a module looks unlike any known one."""
    callback = _callback()
    if hasattr(module, "DEFAULT_CALLBACKS"):
        # transformers makes its callbacks from classes and shares none between trainers; ours is one per process
        module.DEFAULT_CALLBACKS.append(callback)
    else:
        _extend(module.CallbackHandler, callback)
    callback.attach(module)


@functools.cache
def _callback() -> DoctorCallback:
    callback = DoctorCallback()
    callback.listen()
    if callback.folder is not None:
        record_collectives(callback.folder)
    return callback


def record_collectives(folder: Path) -> None:
    """NCCL's flight recorder writes which collective a rank waited in, into our folder, when the watchdog gives up; what is set stays.

    To be called before the process group is made, for it reads these variables then.
    """
    torch = getattr(sys.modules.get("torch"), "__version__", None)
    if torch is None or os.environ.get("WORLD_SIZE", "1") == "1":
        return
    version = versions.parse(str(torch))[:2]
    size, file = next(names for since, names in TRACE.items() if version >= versions.parse(since))
    if not any(name in os.environ for names in TRACE.values() for name in names):
        os.environ[size] = ENTRIES
        os.environ[file] = str(folder / "lfdoctor-nccl-rank")
        os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")


def _extend(handler: Any, callback: DoctorCallback) -> None:
    init = handler.__init__

    @functools.wraps(init)
    def with_ours(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.callbacks.append(callback)

    handler.__init__ = with_ours
