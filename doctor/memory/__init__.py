"""Peak GPU memory of a configuration, before it is run.

The door for others: `estimate(config, facts=...)`, `anchored(before, after, measured_gib)`, `capacity_gib(card)`, `GpuSpec`,
and `UnknownShape`, which is raised where a model's sizes are not known.
"""

from __future__ import annotations

from doctor.memory.estimate import Estimate, anchored, estimate
from doctor.memory.gpu import GpuSpec, capacity_gib
from doctor.memory.shapes import UnknownShape

__all__ = ["Estimate", "GpuSpec", "UnknownShape", "anchored", "capacity_gib", "estimate"]
