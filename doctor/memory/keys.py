"""Sizes in a config.json: the first of several spellings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctor.memory.shapes import UnknownShape


def size(raw: Mapping[str, Any], *names: str) -> int:
    """The first positive integer under these names. Raises UnknownShape if there is none."""
    found = given_or_none(raw, *names)
    if found is None:
        raise UnknownShape(f"the model config has none of {', '.join(names)}: cannot estimate memory")
    return found


def given_or_none(raw: Mapping[str, Any], *names: str) -> int | None:
    """The first positive integer under these names, if any."""
    return next((value for name in names if (value := _positive(raw.get(name)))), None)


def most(raw: Mapping[str, Any], *names: str) -> int | None:
    """The same, where a value may be a list with a number for each layer: its largest (Hunyuan, Gemma 3n)."""
    for name in names:
        value = raw.get(name)
        found = max((_positive(item) or 0 for item in value), default=0) if isinstance(value, list) else _positive(value)
        if found:
            return found
    return None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
