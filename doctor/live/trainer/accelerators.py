"""Which vendor's readings this machine has: NVIDIA (NVML), AMD (amdsmi) or Ascend (npu-smi)."""

from __future__ import annotations

from doctor.live.trainer.ascend import Ascend
from doctor.live.trainer.nvml import Gpus
from doctor.live.trainer.rocm import Rocm


class Accelerators:
    """`read()` gives the figures of the accelerators that this run may use, under one set of names (`gpu.0.used_gib`, ...).

    The first vendor that gives a figure is kept; where none does, each is asked again, which costs nothing where its driver is missing.
    """

    def __init__(self) -> None:
        self._vendors: list[Gpus | Rocm | Ascend] = [Gpus(), Rocm(), Ascend()]

    @property
    def indices(self) -> list[int]:
        """The vendor tool's index (nvidia-smi, amd-smi, npu-smi) of each visible card, in torch's order; empty before a reading."""
        return next((vendor.indices for vendor in self._vendors if vendor.indices), [])

    def read(self) -> dict[str, float]:
        """One reading; never raises."""
        for vendor in self._vendors:
            figures = vendor.read()
            if figures:
                self._vendors = [vendor]
                return figures
        return {}
