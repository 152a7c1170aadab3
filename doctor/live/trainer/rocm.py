"""Readings of AMD GPUs through AMD SMI's Python interface (`amdsmi`, which ROCm installs; no package of ours brings it).

Documented in https://rocm.docs.amd.com/projects/amdsmi/en/latest/reference/amdsmi-py-api.html and in py-interface/README.md of
https://github.com/ROCm/amdsmi. There is no `throttled` figure: the status that the interface gives is one bit that the power cap sets, too,
and the violation counters make the library wait for 100 ms.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from doctor.support.optional import of_the_training

DRIVER = Path("/dev/kfd")
"""Without the driver's device amdsmi is not imported: its import prints to standard output where its library is missing."""
MIB_PER_GIB = 1024
"""amdsmi_get_gpu_vram_usage: "VRAM usage (both total and used memory) in MegaBytes", computed as bytes / 2^20."""
MILLIDEGREES = 1000
"""The documentation says millidegrees, most releases give degrees: no GPU works at 1000 degrees, none at 1."""
_POWERS = ("current_socket_power", "average_socket_power", "socket_power")
"""Watts; which of them an ASIC knows depends on its generation."""


class Rocm:
    """`read()` gives `gpu.<index>.<figure>` of the GPUs this run may use; the index is amd-smi's.

    As with NVML the GPUs are looked up once, and a figure or a GPU that fails costs only itself.
    """

    def __init__(self) -> None:
        self._smi: Any = None
        self._gpus: list[tuple[int, Any]] | None = None

    @property
    def indices(self) -> list[int]:
        """amd-smi's index of each visible GPU, in the order in which torch counts them."""
        return [index for index, _ in self._gpus or []]

    def read(self) -> dict[str, float]:
        """One reading; never raises."""
        if self._gpus is None:
            self._gpus = []
            with contextlib.suppress(Exception):
                self._gpus = self._look_up()
        out: dict[str, float] = {}
        for index, handle in self._gpus:
            for name, call in self._calls(handle):
                with contextlib.suppress(Exception):  # not supported here
                    out[f"gpu.{index}.{name}"] = call()
        return out

    def _look_up(self) -> list[tuple[int, Any]]:
        if not DRIVER.exists():
            return []
        self._smi = of_the_training("amdsmi")
        self._smi.amdsmi_init()
        handles = list(enumerate(self._smi.amdsmi_get_processor_handles()))
        for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
            named = os.environ.get(variable)
            if named is not None and not (variable == "CUDA_VISIBLE_DEVICES" and "HIP_VISIBLE_DEVICES" in os.environ):
                handles = list(visible(handles, named, self._serial))  # HIP counts what ROCr left
        return handles

    def _serial(self, handle: Any) -> str:
        """The unique id that ROCr's `GPU-<16 hexadecimal digits>` is made of."""
        return str(self._smi.amdsmi_get_gpu_asic_info(handle)["asic_serial"]).lower().removeprefix("0x")

    def _calls(self, handle: Any) -> Iterator[tuple[str, Callable[[], float]]]:
        smi = self._smi
        yield "used_gib", lambda: round(_number(smi.amdsmi_get_gpu_vram_usage(handle), "vram_used") / MIB_PER_GIB, 3)
        yield "total_gib", lambda: round(_number(smi.amdsmi_get_gpu_vram_usage(handle), "vram_total") / MIB_PER_GIB, 3)
        yield "util_percent", lambda: _number(smi.amdsmi_get_gpu_activity(handle), "gfx_activity")
        yield "power_watts", lambda: _watts(smi.amdsmi_get_power_info(handle))
        yield "temperature_c", lambda: self._temperature(handle)

    def _temperature(self, handle: Any) -> float:
        """Of the hottest point: accelerators (MI300) have no edge sensor."""
        smi = self._smi
        value = float(smi.amdsmi_get_temp_metric(handle, smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT))
        return round(value / MILLIDEGREES if value >= MILLIDEGREES else value, 1)


def _number(values: Mapping[str, Any], name: str) -> float:
    """A figure of a dictionary; ValueError for "N/A"."""
    return float(values[name])


def _watts(values: Mapping[str, Any]) -> float:
    """The first power that is known: the others are 0 or "N/A"."""
    known = (values.get(name) for name in _POWERS)
    return next(float(value) for value in known if isinstance(value, int | float) and value > 0)


def visible(handles: list[tuple[int, Any]], named: str, serial: Callable[[Any], str]) -> Iterator[tuple[int, Any]]:
    """The GPUs that a variable names, by their place among `handles` or by `GPU-<unique id>`; an unknown one hides all after it."""
    for entry in (part.strip() for part in named.split(",")):
        if entry.isdigit() and int(entry) < len(handles):
            yield handles[int(entry)]
        elif re.fullmatch(r"GPU-[0-9a-fA-F]+", entry):
            wanted = entry.removeprefix("GPU-").lower()
            found = [pair for pair in handles if serial(pair[1]).zfill(len(wanted)) == wanted]
            if not found:
                return
            yield found[0]
        else:
            return
