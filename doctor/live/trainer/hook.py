"""Adds the callback to every trainer of this process; called by the injected hook once a trainer's module has been imported."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from doctor.live.trainer import step_probe
from doctor.live.trainer.callback import DoctorCallback
from doctor.support import release

FLIGHT_RECORDER = {
    "2.8": ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE"),
    "": ("TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"),
}
"""torch version -> variables of NCCL's flight recorder since then (newer versions warn about the older names)."""
ENTRIES = "2000"
"""Size of the ring buffer; torch's own default since the recorder is on by default."""


def attach(module: Any) -> None:
    """Add the callback to transformers.trainer or to LLaMA-Factory's v1 callbacks. Raises AttributeError for an unknown module."""
    callback = _callback()
    if hasattr(module, "DEFAULT_CALLBACKS"):
        # transformers creates a callback per trainer from classes; ours is one instance per process
        module.DEFAULT_CALLBACKS.append(callback)
        if (steps := step_probe.wanted()) is not None:  # a training that only repeats steps
            module.DEFAULT_CALLBACKS.append(step_probe.ProbeCallback(steps, lambda: callback))
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
    """Let NCCL's flight recorder write the collective a rank waited in to `folder` when the watchdog gives up.

    Variables that are set stay. Call it before the process group is created, which reads them.
    """
    torch = getattr(sys.modules.get("torch"), "__version__", None)
    if torch is None or os.environ.get("WORLD_SIZE", "1") == "1":
        return
    version = release.parse(str(torch))[:2]
    size, file = next(names for since, names in FLIGHT_RECORDER.items() if version >= release.parse(since))
    if not any(name in os.environ for names in FLIGHT_RECORDER.values() for name in names):
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
