"""What PyTorch says when the card is full, per generation; the wording is PyTorch's, the figures are parameters.

1.x: c10/cuda/CUDACachingAllocator.cpp up to v1.13 and v2.0; 2.1 has the misspelt "capacty"; 2.2 advises expandable_segments;
from 2.9 the environment variable is called PYTORCH_ALLOC_CONF. `Process N has ...` lines come from NVML (2.1 and later).
"""

from __future__ import annotations

_OWN = "Including non-PyTorch memory, this process has {used} memory in use. "
_SPLIT = (
    "Of the allocated memory {allocated} is allocated by PyTorch, and {unallocated} is reserved by PyTorch but unallocated. "
    "If reserved but unallocated memory is large try setting "
)
_DOCS = " to avoid fragmentation.  See documentation for Memory Management "

MESSAGES = {
    "1.x": (
        "CUDA out of memory. Tried to allocate {wanted} (GPU {gpu}; {total} total capacity; {allocated} already allocated; {free} free; "
        "{reserved} reserved in total by PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb"
        + _DOCS
        + "and PYTORCH_CUDA_ALLOC_CONF"
    ),
    "2.1": (
        "CUDA out of memory. Tried to allocate {wanted}. GPU {gpu} has a total capacty of {total} of which {free} is free. "
        "{others}" + _OWN + _SPLIT + "max_split_size_mb" + _DOCS + "and PYTORCH_CUDA_ALLOC_CONF"
    ),
    "2.2": (
        "CUDA out of memory. Tried to allocate {wanted}. GPU {gpu} has a total capacity of {total} of which {free} is free. "
        "{others}" + _OWN + _SPLIT + "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True" + _DOCS
        + " (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    ),
    "2.9": (
        "CUDA out of memory. Tried to allocate {wanted}. GPU {gpu} has a total capacity of {total} of which {free} is free. "
        "{others}" + _OWN + _SPLIT + "PYTORCH_ALLOC_CONF=expandable_segments:True" + _DOCS
        + " (https://docs.pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    ),
}  # fmt: skip
MESSAGES["2.0"] = MESSAGES["1.x"]
MESSAGES["2.5"] = MESSAGES["2.2"]

TYPES = {
    "1.x": "RuntimeError",
    "2.0": "torch.cuda.OutOfMemoryError",
    "2.1": "torch.cuda.OutOfMemoryError",
    "2.2": "torch.cuda.OutOfMemoryError",
}
"""The exception's printed name where it is not today's `torch.OutOfMemoryError` (2.5 and later)."""

CARD = {
    "wanted": "1.25 GiB",
    "total": "23.57 GiB",
    "free": "733.00 MiB",
    "used": "22.84 GiB",
    "allocated": "21.96 GiB",
    "unallocated": "401.52 MiB",
    "reserved": "22.35 GiB",
    "others": "",
    "gpu": 0,
}
"""A 24 GiB card, full, by one process; scenarios change what they need."""


def message(generation: str, **figures: object) -> str:
    """The text of one generation with the card's figures, some of them replaced."""
    return MESSAGES[generation].format(**{**CARD, **figures})
