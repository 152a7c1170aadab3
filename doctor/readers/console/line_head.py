"""Time and level that a log line begins with: Python logging, transformers, torchrun, glog."""

from __future__ import annotations

import calendar
import re
from functools import lru_cache

_LEVEL = re.compile(r"(?<![A-Za-z])(DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL)(?![A-Za-z])")
_LEVEL_WITHIN = 80
"""Characters of a line in which its level stands; a word further on is part of the message."""
_GLOG = re.compile(r"\[?([WEIF])\d{4} ")
_GLOG_LEVELS = {"W": "WARNING", "E": "ERROR", "I": "INFO", "F": "CRITICAL"}
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T _](\d\d):(\d\d):(\d\d)")
_TIME_WITHIN = 120
"""Characters of a line in which its time stands."""
_AMERICAN = re.compile(r"(\d\d)/(\d\d)/(\d{4}) (\d\d):(\d\d):(\d\d)")


def level(text: str) -> str | None:
    """The level of a line (`WARNING`), or None."""
    found = _LEVEL.search(text, 0, _LEVEL_WITHIN)
    if found is not None:
        return found[1]
    glog = _GLOG.match(text)
    return _GLOG_LEVELS[glog[1]] if glog is not None else None


def timestamp(text: str) -> float | None:
    """The time of a line in Unix seconds, as if it were UTC; None if it has none."""
    if (found := _ISO.search(text, 0, _TIME_WITHIN)) is not None:
        return _seconds(found.groups())
    if (found := _AMERICAN.match(text)) is not None:
        month, day, year, *clock = found.groups()
        return _seconds((year, month, day, *clock))
    return None


@lru_cache(64)
def _seconds(parts: tuple[str, ...]) -> float | None:
    """Unix seconds of a date and a time of day. Many lines are of the same second."""
    year, month, day, *clock = map(int, parts)
    return float(calendar.timegm((year, month, day, *clock, 0, 0, 0))) if 1 <= month <= 12 and 1 <= day <= 31 else None
