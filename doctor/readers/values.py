"""Values as logs and configurations write them: numbers, durations, option values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from doctor.config import yaml_edit

_DURATION = re.compile(r"(?:(-?\d{1,9}) days?, )?(\d{1,9}):(\d\d):(\d\d)(?:\.\d{1,9})?")
_SPECIAL = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "+inf": float("inf")}
_MAX_INTEGER = 1 << 1000
"""Larger integers do not fit a float."""
SUMMARY_FACTS = {
    "train_runtime": "train.runtime_seconds",
    "train_samples_per_second": "train.samples_per_second",
    "train_steps_per_second": "train.steps_per_second",
    "train_loss": "train.loss",
}
"""Metric of the Trainer's last record -> fact."""


def duration_seconds(text: Any) -> float | None:
    """Seconds of `1 day, 0:08:23` or `0:04:56` (Python's str(timedelta)); None for anything else."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    days, hours, minutes, seconds = found.groups()
    return float((int(days) * 86400 if days else 0) + int(hours) * 3600 + int(minutes) * 60 + int(seconds))


def option_value(text: str) -> Any:
    """An option's value as LLaMA-Factory reads it from YAML: `5e-5` -> 5e-05, `yes` -> True; the text itself if it is no YAML value."""
    try:
        return yaml_edit.load(f"value: {text}")["value"] if text.strip() else text
    except (yaml_edit.NotReadable, KeyError):
        return text


def flags(words: Sequence[Any]) -> dict[str, Any]:
    """The options of a program's arguments: `--key value`, `--key=value`, and `--key` alone, which is true."""
    out: dict[str, Any] = {}
    name: str | None = None
    for word in map(str, words):
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            out[name] = option_value(value) if equals else True
            name = None if equals else name
        elif name is not None:
            out[name], name = option_value(word), None
    return out


def number(value: Any) -> float | None:
    """A metric's value: numbers, numbers as text, NaN and infinities in any spelling; None for everything else (also booleans)."""
    if isinstance(value, float):
        return value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return float(value) if abs(value) < _MAX_INTEGER else None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return _SPECIAL.get(value.strip().lower().removesuffix("inity"))
    return None


def numbers(record: Mapping[str, Any], skip: frozenset[str] = frozenset()) -> dict[str, float]:
    """The entries of a record that are numbers, as floats, without those named in `skip`."""
    out = {}
    for name, value in record.items():
        if name not in skip and isinstance(name, str):
            if type(value) is float:
                out[name] = value
            elif (converted := number(value)) is not None:
                out[name] = converted
    return out
