"""GPU readings through NVML (package nvidia-ml-py, imported as pynvml; without it there are none)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from doctor.support.optional import need

GIB = 1 << 30
SLOWED_DOWN = 0x8 | 0x20 | 0x40 | 0x80
"""nvml.h, clocks event reasons: hardware slowdown, software thermal slowdown, hardware thermal slowdown, power brake. Not the software
power cap (0x4): a healthy GPU at full load is at its power limit most of the time."""
TEMPERATURE_GPU = 0
"""NVML_TEMPERATURE_GPU: the sensor on the die."""


class Gpus:
    """`read()` gives `gpu.<index>.<figure>` of the GPUs this run may use; the index is NVML's, as nvidia-smi prints it.

    The GPUs are looked up once. A figure that a GPU does not give (utilisation under MIG, memory of a unified-memory device) and a GPU
    without permission cost only themselves.
    """

    def __init__(self) -> None:
        self._nvml: Any = None
        self._gpus: list[tuple[int, Any]] | None = None
        self._ordered = True

    @property
    def indices(self) -> list[int]:
        """NVML's index of each visible GPU, in the order in which torch counts them; empty where that order is not known."""
        return [index for index, _ in self._gpus or []] if self._ordered else []

    def read(self) -> dict[str, float]:
        """One reading; never raises."""
        if self._gpus is None:
            self._gpus = []  # whatever fails below fails every second
            with contextlib.suppress(Exception):  # no driver, no package
                self._nvml = need("pynvml", "gpu")
                self._nvml.nvmlInit()
                self._gpus = self._look_up(os.environ.get("CUDA_VISIBLE_DEVICES"))
        out: dict[str, float] = {}
        for index, handle in self._gpus:
            for name, value in self._figures(handle):
                out[f"gpu.{index}.{name}"] = value
        return out

    def _look_up(self, named: str | None) -> list[tuple[int, Any]]:
        """The visible GPUs. NVML counts in PCI order; CUDA does so only with CUDA_DEVICE_ORDER=PCI_BUS_ID or where all GPUs are alike.

        Of different ones it puts the fastest first, by a guess of its own: then an index says nothing about which GPU it is.
        """
        found = list(visible_gpus(self._nvml, named))
        every = list(visible_gpus(self._nvml, None))
        self._ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({self._kind(gpu) for _, gpu in every}) < 2
        by_index = named is None or any(part.strip().isdigit() for part in named.split(","))
        self._ordered = self._ordered or not by_index
        return found if self._ordered or len(found) == len(every) else []

    def _kind(self, handle: Any) -> str:
        return _text(self._nvml.nvmlDeviceGetName(handle))

    def _figures(self, handle: Any) -> Iterator[tuple[str, float]]:
        nvml = self._nvml
        reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
            nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None
        )
        calls: tuple[tuple[str, Callable[[], float]], ...] = (
            ("used_gib", lambda: round(nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB, 3)),
            ("total_gib", lambda: round(nvml.nvmlDeviceGetMemoryInfo(handle).total / GIB, 3)),
            ("util_percent", lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            ("power_watts", lambda: round(nvml.nvmlDeviceGetPowerUsage(handle) / 1000, 1)),
            ("temperature_c", lambda: float(nvml.nvmlDeviceGetTemperature(handle, TEMPERATURE_GPU))),
            ("throttled", lambda: float(bool(reasons(handle) & SLOWED_DOWN)) if reasons else _missing()),
        )
        for name, call in calls:
            with contextlib.suppress(Exception):  # not supported here
                yield name, call()


def _missing() -> float:
    raise LookupError("this pynvml has no such function")


def visible_gpus(nvml: Any, named: str | None) -> Iterator[tuple[int, Any]]:
    """NVML index and handle of each GPU in CUDA_VISIBLE_DEVICES (None: all).

    Entries are indices, UUIDs (`GPU-...`, may be shortened) or MIG names (`MIG-...`). As in CUDA, an entry that names no GPU hides
    all after it. GPUs that may not be opened are left out.
    """
    if named is None:
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(Exception):  # no permission for this one
                yield index, nvml.nvmlDeviceGetHandleByIndex(index)
        return
    count = nvml.nvmlDeviceGetCount()
    for entry in (part.strip() for part in named.split(",")):
        if entry.isdigit():
            if int(entry) >= count:
                return
            with contextlib.suppress(Exception):
                yield int(entry), nvml.nvmlDeviceGetHandleByIndex(int(entry))
        elif entry.startswith("MIG-"):
            with contextlib.suppress(Exception):
                yield _mig(nvml, entry)
        elif entry.startswith("GPU-"):
            found = list(_by_uuid(nvml, entry, count))
            if len(found) != 1:  # unknown or ambiguous
                return
            yield found[0]
        else:
            return


def _by_uuid(nvml: Any, prefix: str, count: int) -> Iterator[tuple[int, Any]]:
    for index in range(count):
        with contextlib.suppress(Exception):  # no permission for this one
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(prefix):
                yield index, handle


def _mig(nvml: Any, name: str) -> tuple[int, Any]:
    """A MIG instance by its UUID or its older name `MIG-GPU-<uuid>/<gpu instance>/<compute instance>`; index of the GPU it is on."""
    handle = nvml.nvmlDeviceGetHandleByUUID(name)
    return int(nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle))), handle


def _text(value: Any) -> str:
    """Older versions of the bindings return bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
