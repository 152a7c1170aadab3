"""Option values as numbers, flags and names, for code that computes with them. Nothing here raises."""

from __future__ import annotations

import math
import re
from typing import Any

MAX_DIGITS = 400
"""Longer texts are no numbers of a config; Python refuses to read integers of more than 4,300 digits."""

OLDER_NAMES = {"eval_strategy": "evaluation_strategy"}
"""Option -> its name in older releases (transformers up to 4.45), which means the same to a run that took it."""

LARGEST = 10**12
"""Larger sizes are cut off here, so that products of a few of them stay within a float."""


_MAX_BITS = int(MAX_DIGITS * math.log2(10))


def bounded(value: Any) -> Any:
    """`value` with every integer of more than MAX_DIGITS digits as an infinity, in lists and mappings too: Python neither prints it nor
    converts it to a float."""
    if isinstance(value, dict):
        return {bounded(key): bounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [bounded(part) for part in value]
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return math.copysign(math.inf, value > 0 or -1)
    return value


def is_true(value: Any) -> bool:
    """Whether YAML or the command line would read `value` as true."""
    return value is True or str(value)[:8].strip().lower() in ("true", "1", "yes", "on")


def as_int(value: Any, default: int) -> int:
    """`value` as an int (2, 2.0, "2", "2e3"), cut off at LARGEST; `default` for what is no finite number."""
    number = as_float(value, math.nan)
    return default if math.isnan(number) else int(max(-LARGEST, min(number, LARGEST)))


def as_float(value: Any, default: float) -> float:
    """`value` as a finite float, else `default`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return number if math.isfinite(number) else default


def as_number(text: str) -> int | float | None:
    """The finite number that a text is (`4`, `5e-5`), else None."""
    text = text.strip()
    if len(text) > MAX_DIGITS:
        return None
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def as_names(value: Any) -> list[str]:
    """The names in a list, or in a text separated by commas."""
    if value is None:
        return []
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]
