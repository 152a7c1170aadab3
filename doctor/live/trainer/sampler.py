"""Readings of the machine: host memory, this process, free disk, GPUs. Standard library only; never touches a CUDA context."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from doctor.live.trainer.accelerators import Accelerators

GIB = 1 << 30
_HOST = {
    b"MemTotal": "host.total_gib",
    b"MemAvailable": "host.available_gib",
    b"SwapFree": "host.swap_free_gib",
    b"Shmem": "host.shared_gib",
}
"""/proc/meminfo key -> metric."""


class Sampler:
    """`read()` gives the metrics of a `Sample`: names with units; what the machine does not tell is left out.

    With `whole` (the first rank of a node) host, disk and GPUs are read, too. `folder` is where the run writes: its free space counts.
    """

    def __init__(self, folder: Path | None, *, whole: bool) -> None:
        self.folder, self.whole = folder, whole
        self.accelerators = Accelerators()

    def read(self) -> dict[str, float]:
        """One reading; never raises."""
        out: dict[str, float] = {}
        for part in (self._process, self._host, self._disk, self.accelerators.read) if self.whole else (self._process,):
            with contextlib.suppress(Exception):  # a missing source costs its own figures only
                out.update(part())
        return out

    def _process(self) -> dict[str, float]:
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
        disk = os.statvfs(self.folder)
        return {"disk.free_gib": _gib(disk.f_bavail * disk.f_frsize)}


def _gib(size: float) -> float:
    return round(size / GIB, 3)


def _cgroup() -> dict[str, float]:
    """Memory of the container, if it has a limit (cgroup 2)."""
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
