"""Recognise out-of-memory messages of GPUs and read their numbers, in all wordings since torch 1.x."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from doctor.support.lazy_regex import lazy_compile

GIB = 2**30
BYTES_PER_UNIT = {"bytes": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": GIB, "TiB": 2**40}
"""Unit in a message -> bytes."""
SIZE = r"(?<![\d.])([\d.]{1,40}) ?(bytes|[KMGT]i?B)"
CONTEXT_GIB = 1.5
"""Upper bound of a process's memory outside PyTorch's allocator (CUDA context, cuBLAS, NCCL). Measured: 0.3 (RTX 3060) to 1.4 (H100)."""

HEADS = tuple(
    lazy_compile(pattern)
    for pattern in (
        # torch 1.x to 2.13, ROCm, torch_npu, Intel, Moore Threads, Cambricon: "<device> out of memory. Tried to allocate ..."
        r"\b(?P<device>CUDA|HIP|NPU|XPU|MUSA|MLU|GCU|HPU|SDAA) out of memory(?:\.|$| \()",
        # torch 1.12 and later on Apple silicon
        r"(?P<device>MPS) backend out of memory",
        # torch 2.x with backend:cudaMallocAsync
        r"Allocation on device(?: \d+)? would exceed allowed memory",
        # a failed CUDA call: RuntimeError, torch.AcceleratorError (torch 2.8), Triton
        r"(?P<device>CUDA|Cuda|HIP)(?: driver)? [eE]rror:? (?:\(\d+\): )?out of memory",
        r"(?P<device>CUDA)_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory",
        r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED",
        # NCCL's own allocations (2.10 and later)
        r"Cuda failure (?:\d+ )?'out of memory'|Failed to CUDA calloc",
        # bitsandbytes' csrc: "Error out of memory at line 380 in file ..."
        r"Error out of memory at line \d+ in file",
        # CANN: ACL_ERROR_RT_MEMORY_ALLOCATION
        r"(?P<device>NPU) .*error code is 207001",
        r"^torch\.(?:cuda\.)?OutOfMemoryError\b",
        # accelerate's find_executable_batch_size caught such a message at every batch size
        r"No executable batch size found",
    )
)
"""Every message matches one of these; group `device` is the kind of accelerator if the message names it."""
_FIELDS = {
    "wanted": (rf"Tried to allocate {SIZE}", rf"Requested\s*:\s*{SIZE}"),
    "total": (rf"total capaci?ty of {SIZE}", rf"{SIZE} total capacity", rf"max allowed: {SIZE}", rf"Device limit\s*:\s*{SIZE}"),
    "free": (rf"of which {SIZE} is free", rf"{SIZE} free", rf"Free \(according to CUDA\)\s*:\s*{SIZE}"),
    "allocated": (
        rf"{SIZE} is allocated by PyTorch",
        rf"{SIZE} already allocated",
        rf"MPS allocated: {SIZE}",
        rf"Currently allocated\s*:\s*{SIZE}",
    ),
    "reserved": (rf"{SIZE} is reserved by PyTorch but unallocated",),
    "held": (rf"{SIZE} reserved in total", rf"{SIZE} cached"),
    "process": (rf"this process has {SIZE} memory in use",),
    "outside": (rf"other allocations: {SIZE}",),
}
FIELDS = {name: tuple(lazy_compile(pattern) for pattern in patterns) for name, patterns in _FIELDS.items()}
"""Name of a size -> its wordings, newest torch first; the first match is used."""
PROCESSES = lazy_compile(rf"Process (\d{{1,9}}) has {SIZE} memory in use")
GPU = lazy_compile(r"\b[GNX]PU ([\x00-\x07]|\d{1,9})[ ;]")
SHARES = ("wanted_share", "allocated_share", "reserved_share", "others_share")
"""Sizes that also become a fact as a share of the GPU's memory."""
CONTINUATION_WORDS = ("GiB", "MiB", "reserved in total", "allocated by PyTorch", "already allocated")
"""Words of lines that continue a message wrapped by the console."""
FINAL_WORDS = ("reserved but unallocated memory is large", "reserved in total", "cached)", "max allowed")
"""Words of the last part of a message: no line continues it."""


def find_head(text: str) -> re.Match[str] | None:
    """The match of HEADS; None for other texts and for messages of the kernel and of cgroups about host memory."""
    if "cgroup out of memory" in text or "Killed process" in text:
        return None
    return next((found for head in HEADS if (found := head.search(text))), None)


def is_of_nccl(head: re.Match[str]) -> bool:
    """Whether the message is of an allocation that NCCL made for itself."""
    return head[0].startswith(("Cuda failure", "Failed to CUDA calloc"))


def _gib(number: str, unit: str) -> float | None:
    try:
        return float(number) * BYTES_PER_UNIT[unit] / GIB
    except ValueError:
        return None


def message_facts(text: str, head: re.Match[str]) -> dict[str, Any]:
    """Sizes (GiB), shares of the GPU's memory, device and GPU number of one message; see GpuOom for the names."""
    device = (head.groupdict().get("device") or "cuda").lower()
    found: dict[str, float] = {}
    for name, patterns in FIELDS.items():
        hit = next((match for pattern in patterns if (match := pattern.search(text))), None)
        value = _gib(*hit.groups()) if hit else None
        if value is not None:
            found[name] = value
    facts: dict[str, Any] = {"device": device, "generation": _generation(text, found)}
    if gpu := GPU.search(text):
        facts["gpu"] = int(gpu[1]) if gpu[1].isdigit() else ord(gpu[1])
    if "held" in found and "allocated" in found:
        found.setdefault("reserved", max(0.0, found["held"] - found["allocated"]))
    others = _others(text, found, facts)
    if others is not None:
        found["others"] = others
    facts |= _largest_other(text, found)
    for name in ("wanted", "total", "free", "allocated", "reserved", "process", "others"):
        if name in found:
            facts[f"{name}_gib"] = round(found[name], 4)
            if found.get("total") and f"{name}_share" in SHARES:
                facts[f"{name}_share"] = round(found[name] / found["total"], 4)
    if found.get("wanted") and "reserved" in found:
        facts["reserved_over_wanted"] = round(found["reserved"] / found["wanted"], 3)
    return facts


def _generation(text: str, found: Mapping[str, float]) -> str:
    if "wanted" not in found:
        return "bare"
    return "legacy" if "total capacity;" in text else "numbers"


def _processes(text: str) -> list[tuple[float, int]]:
    """GiB and id of each process that the message lists."""
    return [(size, int(hit[1])) for hit in PROCESSES.finditer(text) if (size := _gib(*hit.groups()[1:])) is not None]


def _largest_other(text: str, found: dict[str, float]) -> dict[str, Any]:
    """The largest other process that the message lists by its id, and whether what it holds would be enough; {} for a mere context.

    Only where the message names this process apart from the listed ones.
    """
    if not {"process", "wanted"} <= found.keys() or "this process has" not in text:
        return {}
    size, pid = max(_processes(text), default=(0.0, 0))
    if size < CONTEXT_GIB:
        return {}
    return {"other_pid": pid, "other_gib": round(size, 2), "other_enough": size + found.get("free", 0.0) >= found["wanted"]}


def _others(text: str, found: dict[str, float], facts: dict[str, Any]) -> float | None:
    """GiB of the GPU held by other processes; None if the message has no such numbers.

    If the message lists processes: the sum of all but this one. Inside a container the message does not say which one is this process;
    it is taken to be the smallest that is large enough for what PyTorch holds. Without a list: total - free - held by PyTorch - one CUDA
    context.
    """
    held = found.get("allocated", 0.0) + found.get("reserved", 0.0)
    listed = [size for size, _ in _processes(text)]
    if listed and "process" not in found and "allocated" in found:
        this_process = min((size for size in listed if size >= held - 0.05), default=None)
        if this_process is not None and this_process <= held + 6 * CONTEXT_GIB:
            listed.remove(this_process)
            found["process"] = this_process
    if listed or "process" in found:
        facts["siblings"] = sum(size < CONTEXT_GIB for size in listed)
        return sum(listed)
    if "outside" in found:
        return found["outside"]
    if {"total", "free", "allocated"} <= found.keys():
        return max(0.0, found["total"] - found["free"] - held - CONTEXT_GIB)
    return None
