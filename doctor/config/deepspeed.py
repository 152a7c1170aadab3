"""What `deepspeed:` means: a path, JSON text or a mapping. The only reading; options, patches and the memory model share it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.config.values import as_float, as_int, is_true

MAX_FILE_BYTES = 1_000_000
"""Larger files are not read; DeepSpeed configs have a few kilobytes."""

_NAMED_STAGE = re.compile(r"z(?:ero)?[-_]?(?:stage)?[-_]?([0-3])|stage[-_]?([0-3])")
"""ds_z3_offload_config.json, zero2.json, stage_1.json."""


class DeepSpeed(msgspec.Struct, frozen=True):
    """The settings that matter for memory and for rules. None: not known.

    Bucket sizes and `max_live` are in elements; defaults are DeepSpeed's own (deepspeed/runtime/zero/config.py).
    """

    stage: int | None = 0
    offload_optimizer: bool = False
    offload_params: bool = False
    reduce_bucket: float = 5e8
    max_live: float = 1e9
    overlap: bool | None = False

    @property
    def offload(self) -> bool:
        """Whether anything is kept in host memory or on disk."""
        return self.offload_optimizer or self.offload_params


def read(value: Any, facts: Mapping[str, Any]) -> DeepSpeed:
    """The settings behind the option's value, from the best source available:

    1. the mapping or JSON text itself,
    2. the file's content: the fact `deepspeed.config`, else the file in `config.folder` or the working directory,
    3. the stage that the run printed (`deepspeed.stage`),
    4. the file's name (ds_z3_offload_config.json).

    Without a value only the printed stage counts: accelerate can start DeepSpeed without the option.
    """
    printed = _stage(facts.get("deepspeed.stage"))
    if not value:
        return DeepSpeed(stage=printed or 0, overlap=printed == 3)
    settings: Mapping[str, Any] | None = deepspeed_settings(value)
    if settings is None:
        settings = _from_facts_or_file(value, facts)
    return _from_name(value, printed) if settings is None else _from_settings(settings)


def deepspeed_settings(value: Any) -> dict[str, Any] | None:
    """The settings that are written into the option itself, as a mapping or as JSON text; None for a path or broken JSON."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return dict(value) if isinstance(value, Mapping) else None


def _from_facts_or_file(value: Any, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    seen = facts.get("deepspeed.config")
    if isinstance(seen, Mapping):
        return seen
    if not isinstance(value, str) or value.lstrip().startswith("{"):
        return None
    for folder in (Path(str(facts.get("config.folder") or ".")), Path()):
        path = folder / value
        try:
            if path.is_file():
                state = path.stat()
                return _file(str(path), state.st_mtime_ns, state.st_size)
        except (OSError, ValueError):
            return None
    return None


@functools.lru_cache(maxsize=64)
def _file(path: str, _modified: int, size: int) -> Mapping[str, Any] | None:
    """The content of a JSON file, read again only after a change; None if it is no JSON object."""
    if size > MAX_FILE_BYTES:
        return None
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def _from_settings(settings: Mapping[str, Any]) -> DeepSpeed:
    zero = settings.get("zero_optimization")
    zero = zero if isinstance(zero, Mapping) else {}
    stage = _stage(zero.get("stage", 0))
    overlap = zero.get("overlap_comm")
    return DeepSpeed(
        stage=stage,
        offload_optimizer=_offloaded(zero.get("offload_optimizer")),
        offload_params=_offloaded(zero.get("offload_param")),
        reduce_bucket=as_float(zero.get("reduce_bucket_size"), 5e8),
        max_live=as_float(zero.get("stage3_max_live_parameters"), 1e9),
        overlap=stage == 3 if overlap in (None, "auto") else is_true(overlap),  # DeepSpeed's default: only ZeRO-3 overlaps
    )


def _from_name(value: Any, printed: int | None) -> DeepSpeed:
    name = re.split(r"[\\/]", str(value))[-1].lower()
    found = _NAMED_STAGE.search(name)
    stage = printed if printed is not None else int(found[1] or found[2]) if found else None
    offload = "offload" in name
    return DeepSpeed(stage=stage, offload_optimizer=offload, offload_params=offload and stage == 3, overlap=None)


def _stage(value: Any) -> int | None:
    stage = as_int(value, -1)
    return stage if 0 <= stage <= 3 else None


def _offloaded(part: Any) -> bool:
    return isinstance(part, Mapping) and str(part.get("device", "none")) in ("cpu", "nvme")
