"""Regular expressions compiled on first use: compiling all of them at import takes a sixth of the start-up time."""

from __future__ import annotations

import re
from typing import Any, cast

_ATTRIBUTES = ("search", "match", "fullmatch", "finditer", "findall", "split", "sub", "subn", "pattern", "flags", "groups", "groupindex")
"""Attributes of re.Pattern that a lazy pattern has too."""


class _LazyPattern:
    """Compiles on the first access of an attribute other than `pattern`, then holds the compiled pattern's attributes as its own."""

    def __init__(self, text: str, flags: int) -> None:
        self.__dict__["_source"] = (text, flags)

    def __getattr__(self, name: str) -> Any:
        if name not in _ATTRIBUTES:
            raise AttributeError(name)
        if name == "pattern":
            return self.__dict__["_source"][0]
        compiled = re.compile(*self.__dict__["_source"])
        self.__dict__.update((attribute, getattr(compiled, attribute)) for attribute in _ATTRIBUTES)
        return self.__dict__[name]


def lazy_compile(text: str, flags: int = 0) -> re.Pattern[str]:
    """Like `re.compile`, but compiles on first use; re.error is raised then."""
    return cast(re.Pattern[str], _LazyPattern(text, flags))
