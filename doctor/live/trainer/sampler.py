"""Readings of the machine: host memory, this process, free disk, and the cards through NVML. Never touches a CUDA context."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from doctor.support.optional import need

GIB = 1 << 30
_THROTTLED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""nvml.h clocks event reasons: power cap, hardware slowdown, thermal slowdown (software, hardware), power brake."""


class Sampler:
    """`read()` gives the metrics of a `Sample`: names with units; what the machine does not tell is left out.

    Only the first rank of a node looks at the host and the cards (`whole`). `folder` is where the run writes: its free space counts.
    """

    def __init__(self, folder: Path | None, *, whole: bool) -> None:
        self.folder, self.whole = folder, whole
        self._cards: list[Any] | None = None
        self._nvml: Any = None

    def read(self) -> dict[str, float]:
        """One reading; never raises."""
        out: dict[str, float] = {}
        for part in (self._own, self._host, self._disk, self._gpus) if self.whole else (self._own,):
            with contextlib.suppress(Exception):  # one missing source costs its own figures only
                out.update(part())
        return out

    def _own(self) -> dict[str, float]:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        return {"process.rss_gib": _gib(pages * os.sysconf("SC_PAGE_SIZE"))}

    def _host(self) -> dict[str, float]:
        out = {}
        for line in Path("/proc/meminfo").read_bytes().splitlines()[:40]:
            name, _, value = line.partition(b":")
            if name in _HOST:
                out[_HOST[name]] = _gib(int(value.split()[0]) * 1024)
        return {**out, **_cgroup()}

    def _disk(self) -> dict[str, float]:
        if self.folder is None:
            return {}
        told = os.statvfs(self.folder)
        return {"disk.free_gib": _gib(told.f_bavail * told.f_frsize)}

    def _gpus(self) -> dict[str, float]:
        if self._cards is None:
            self._cards = self._find()
        out: dict[str, float] = {}
        for index, card in self._cards:
            for name, value in self._card(card):
                out[f"gpu.{index}.{name}"] = value
        return out

    def _find(self) -> list[Any]:
        """The cards this run may use (all, where the variable names them by something else than numbers)."""
        try:
            nvml = self._nvml = need("pynvml", "gpu")
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except Exception:  # no NVIDIA driver, or no bindings: there is nothing to read
            return []
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        wanted = [int(one) for one in named.split(",") if one.strip().isdigit()] if named is not None else range(count)
        return [(index, nvml.nvmlDeviceGetHandleByIndex(index)) for index in wanted if index < count]

    def _card(self, card: Any) -> list[tuple[str, float]]:
        nvml = self._nvml
        memory, rates = nvml.nvmlDeviceGetMemoryInfo(card), nvml.nvmlDeviceGetUtilizationRates(card)
        out = [("used_gib", _gib(memory.used)), ("total_gib", _gib(memory.total)), ("util_percent", float(rates.gpu))]
        with contextlib.suppress(Exception):
            out.append(("power_watts", round(nvml.nvmlDeviceGetPowerUsage(card) / 1000, 1)))
        with contextlib.suppress(Exception):
            out.append(("temperature_c", float(nvml.nvmlDeviceGetTemperature(card, 0))))
        with contextlib.suppress(Exception):
            out.append(("throttled", float(bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card) & _THROTTLED))))
        return out


_HOST = {
    b"MemTotal": "host.total_gib",
    b"MemAvailable": "host.available_gib",
    b"SwapFree": "host.swap_free_gib",
    b"Shmem": "host.shared_gib",
}


def _gib(size: float) -> float:
    return round(size / GIB, 3)


def _cgroup() -> dict[str, float]:
    """Memory of the container, where it has a limit (cgroup 2)."""
    folder = cgroup_folder()
    limit = (folder / "memory.max").read_text().strip() if folder else "max"
    if folder is None or not limit.isdigit():
        return {}
    return {"cgroup.used_gib": _gib(int((folder / "memory.current").read_text())), "cgroup.limit_gib": _gib(int(limit))}


def cgroup_folder() -> Path | None:
    """The folder of this process's memory control group (version 2), or None."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    inside = next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), None)
    places = [Path("/sys/fs/cgroup") / inside, Path("/sys/fs/cgroup")] if inside is not None else []
    return next((place for place in places if (place / "memory.events").is_file()), None)
