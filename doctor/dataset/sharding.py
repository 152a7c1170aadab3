"""Whether DeepSpeed or FSDP, as a configuration sets them, changes which samples a process reads.

Both get their batches from the same accelerate loader as plain data parallelism (accelerate 1.11.0, accelerator.py `prepare_data_loader`):
DeepSpeed's and FSDP's own settings reach it only through a device mesh, and XLA (TPUs) draws with another seed. Proven with the rest of the
order by tests/lab/order_proof.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doctor.config.deepspeed import MAX_FILE_BYTES, deepspeed_settings
from doctor.config.values import as_int, is_true

_MESHES = (("tensor_parallel", "autotp_size"), ("sequence_parallel_size", ""))
"""Several processes read the same batch."""
_CURRICULA = ("curriculum_learning", "data_efficiency")


def other_order(config: Mapping[str, Any], folder: Path) -> tuple[str, str] | None:
    """What makes the order unknown: a key of words/data.yaml (group order) and what it is about. None where it is that of plain training.

    `folder` is the working directory of the training, to which paths are relative.
    """
    if given := config.get("deepspeed"):
        settings = _settings(given, folder)
        if settings is None:
            return "no_file", f"deepspeed: {given}"
        if option := _of_deepspeed(settings):
            return "option", f"{option} (deepspeed)"
    if given := config.get("fsdp_config"):
        settings = _settings(given, folder)
        if settings is None:
            return "no_file", f"fsdp_config: {given}"
        if any(is_true(settings.get(name)) for name in ("xla", "fsdp_xla")):
            return "option", "xla (fsdp_config)"
    return None


def _settings(given: Any, folder: Path) -> Mapping[str, Any] | None:
    """What is written into the option itself, or into the JSON file that it names; None where that cannot be read."""
    if isinstance(given, Mapping) or str(given).lstrip().startswith("{"):
        return deepspeed_settings(given)
    path = folder / str(given)
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _of_deepspeed(settings: Mapping[str, Any]) -> str:
    for name, inner in _MESHES:
        value = settings.get(name)
        size = value.get(inner) if inner and isinstance(value, Mapping) else value
        if value is not None and as_int(size, 1) > 1:
            return name
    return next((name for name in _CURRICULA if _switched_on(settings.get(name))), "")


def _switched_on(value: Any) -> bool:
    return isinstance(value, Mapping) and is_true(value.get("enabled"))
