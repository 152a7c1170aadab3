"""Peak GPU memory of a configuration, before it is run.

Public names: `estimate(config, facts=...)`, `anchored(before, after, measured_gib)`, `capacity_gib(gpu)`, `GpuSpec`,
and `UnknownShape`, raised for a model of unknown size.
"""

from __future__ import annotations

from doctor.memory.estimate import Estimate, anchored, estimate
from doctor.memory.gpu import GpuSpec, capacity_gib
from doctor.memory.shapes import UnknownShape

__all__ = ["Estimate", "GpuSpec", "UnknownShape", "anchored", "capacity_gib", "estimate"]
