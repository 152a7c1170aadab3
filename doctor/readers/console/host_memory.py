"""Figures of host memory (RAM) that single console lines state: DeepSpeed, Ray, the kernel, Slurm, and a person's own words."""

from __future__ import annotations

import re
from typing import Any

_GIB_OF_KB = 1 / 2**20
_MEMORY = (
    r"(?:(?:CPU|[Hh]ost|[Ss]ystem|[Nn]ode|[Mm]achine)[ -]?(?:memory|RAM|内存|메모리)|(?<![A-Z])RAM|"
    r"(?:系统|物理|主机|服务器)?内存|(?:호스트|시스템) 메모리)"
)
_FULL = (
    r"(?:\bfull\b|fills? up|filled up|exhausted|used up|maxed out|runs? out|ran out|100 ?%|"
    r"占满|耗尽|用尽|用完|爆满|爆了|满了|가득|부족|꽉)"
)

_DEEPSPEED = r"CPU Virtual Memory:\s+used = (?P<used>\d{1,7}(?:\.\d+)?) GB, percent = (?P<percent>\d{1,3}(?:\.\d+)?)%"
"""DeepSpeed runtime/utils.py see_memory_usage; its GB are GiB."""
_RAY = r"Memory on the node .{0,200}?\bwas (?P<used>\d{1,7}(?:\.\d+)?)GB / (?P<total>\d{1,7}(?:\.\d+)?)GB"
"""Ray's memory monitor; its GB are GiB."""
_CGROUP = r"\bmemory: usage (?P<used>\d{1,15})kB, limit (?P<total>\d{1,15})kB"
"""The kernel's report of a cgroup that ran out."""
_SLURM = r"exceeded (?:job |step )?memory limit \((?P<used>\d{1,15}) > (?P<total>\d{1,15})\)"
"""slurmstepd, in kB."""
_SAID = rf"(?P<said>{_MEMORY}[^\n.。;；]{{0,40}}?{_FULL})"
_SIZE = re.compile(r"(?<![\d.])(\d{2,5})\s?(?:GiB|GB|G)\b")
_NOT = re.compile(r"\bnot\b|n't\b|\bno\b|没|未|않|없")
"""Words that turn the sentence into its opposite."""

PATTERNS = (
    ("CPU Virtual Memory:", _DEEPSPEED, "deepspeed"),
    ("Memory on the node", _RAY, "gib"),
    ("memory: usage", _CGROUP, "kb"),
    ("memory limit (", _SLURM, "kb"),
    *((word, _SAID, "said") for word in ("CPU memory", "CPU内存", "CPU RAM", "host memory", "Host memory", "system memory", "system RAM")),
    *(
        (word, _SAID, "said")
        for word in ("系统内存", "物理内存", "主机内存", "服务器内存", "호스트 메모리", "시스템 메모리", "RAM is", "RAM usage")
    ),
)
"""Word of a line, expression, kind of figures."""


def figures(found: re.Match[str], kind: str) -> dict[str, Any]:
    """The facts `host.*` that a match of one of the expressions states."""
    if kind == "said":
        if _NOT.search(found["said"]):
            return {}
        size = _SIZE.search(found["said"])
        return {"host.full": True, **({"host.total_gib": float(size[1])} if size else {})}
    scale = _GIB_OF_KB if kind == "kb" else 1.0
    used = float(found["used"]) * scale
    if kind == "deepspeed":
        percent = float(found["percent"])
        return {"host.used_gib": used, "host.percent": percent} if 0 < percent <= 100 else {}
    total = float(found["total"]) * scale
    return {"host.used_gib": used, "host.total_gib": total, "host.percent": 100 * used / total} if total else {}
