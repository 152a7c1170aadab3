"""GPUs: how much of their memory a training process can use."""

from __future__ import annotations

import re

import msgspec

GIB = 2**30
"""Bytes per GiB."""


class GpuSpec(msgspec.Struct, frozen=True):
    """A GPU: its marketed size and the memory PyTorch can use, both in GiB."""

    name: str
    marketed_gib: float
    usable_gib: float


CARDS: tuple[GpuSpec, ...] = (
    GpuSpec("H200", 141, 139.8),
    GpuSpec("B200", 192, 178.4),
    GpuSpec("MI300X", 192, 191.6),
    GpuSpec("H100", 80, 79.15),
    GpuSpec("H800", 80, 79.15),
    GpuSpec("H20", 96, 95.0),
    GpuSpec("A100-40G", 40, 39.4),
    GpuSpec("A100", 80, 79.15),
    GpuSpec("A800", 80, 79.15),
    GpuSpec("RTX PRO 6000", 96, 94.9),
    GpuSpec("RTX 6000 Ada", 48, 47.4),
    GpuSpec("L40S", 48, 44.4),
    GpuSpec("L40", 48, 44.4),
    GpuSpec("A6000", 48, 47.5),
    GpuSpec("A40", 48, 44.4),
    GpuSpec("V100-32G", 32, 31.7),
    GpuSpec("RTX 5090", 32, 31.4),
    GpuSpec("RTX 4090", 24, 23.5),
    GpuSpec("RTX 3090", 24, 23.6),
    GpuSpec("A10G", 24, 22.0),
    GpuSpec("A10", 24, 22.0),
    GpuSpec("A30", 24, 23.5),
    GpuSpec("L4", 24, 22.0),
    GpuSpec("RTX 4080", 16, 15.6),
    GpuSpec("V100", 16, 15.8),
    GpuSpec("P100", 16, 15.9),
    GpuSpec("T4", 16, 14.6),
    GpuSpec("RTX 3060", 12, 11.7),
    GpuSpec("910B", 64, 60.9),
)
"""Known GPUs. The first name found in the text wins, so longer names come first.

Usable sizes are torch's total capacity in OOM messages (79.15 for an A100-80G, 22.06 for an A10G, 23.64 for an RTX 3090); for GPUs
without such a message, the marketed size less 1 to 3 %.
"""

USABLE_SHARE = 0.99
"""Usable share of a marketed size: driver and page retirement take about 1 % (79.15 of 80 GiB)."""


def capacity_gib(card: str | float) -> float | None:
    """Usable memory in GiB, from a GPU's name ("NVIDIA A100-SXM4-80GB", "RTX 4090", "A100-40G") or its total size in GiB.

    A whole number is a marketed size and loses 1 %; a fraction, as torch and nvidia-smi report, is used as it is.
    None if the name is unknown and contains no size.
    """
    if isinstance(card, int | float):
        return float(card) if card != int(card) else card * USABLE_SHARE
    wanted = _letters(card)
    size = re.search(r"(?:^|[\s-])(\d+)\s*G(?:i?B)?\b", card, re.IGNORECASE)
    for spec in CARDS:
        if _letters(spec.name) not in wanted:
            continue
        if size is None or abs(float(size[1]) - spec.marketed_gib) <= 2:
            return spec.usable_gib
    return None if size is None else float(size[1]) * USABLE_SHARE


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
