"""Whether the disk of output_dir holds one checkpoint, judged when the training begins. Standard library only."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

GIB = 1 << 30
_TWO_MOMENTS = ("adamw_torch", "adamw_torch_fused", "adamw_hf")
"""Values of `optim` whose optimizer keeps two tensors of a weight's size and type; others count as none."""


def too_large(args: Any, model: Any) -> str | None:
    """`2.31 + 4.62 = 6.93 GiB > 1.20 GiB`: weights, optimizer states and their sum, which the disk has no room for; None if it has.

    A lower bound: buffers, the random state and what other optimizers keep are left out, and of sharded models what other ranks hold.
    """
    if model is None or str(getattr(getattr(args, "save_strategy", None), "value", getattr(args, "save_strategy", "no"))) == "no":
        return None
    parameters = list(model.parameters())
    trained = [one for one in parameters if one.requires_grad]
    saved = trained if hasattr(model, "peft_config") else parameters
    weights = sum(map(_bytes, saved))
    optimizer = 2 * sum(map(_bytes, trained)) if _keeps_optimizer(args) else 0
    free = _free(Path(str(getattr(args, "output_dir", None) or ".")))
    if free is None or weights + optimizer <= free:
        return None
    return f"{weights / GIB:.2f} + {optimizer / GIB:.2f} = {(weights + optimizer) / GIB:.2f} GiB > {free / GIB:.2f} GiB"


def _keeps_optimizer(args: Any) -> bool:
    name = getattr(args, "optim", None)
    sharded = getattr(args, "deepspeed", None) or getattr(args, "fsdp", None)
    return not getattr(args, "save_only_model", False) and not sharded and str(getattr(name, "value", name)) in _TWO_MOMENTS


def _bytes(parameter: Any) -> int:
    return int(parameter.numel()) * int(parameter.element_size())


def _free(folder: Path) -> int | None:
    """Bytes that this user may still write on the folder's disk; the folder itself need not exist yet."""
    for place in (folder.absolute(), *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None
