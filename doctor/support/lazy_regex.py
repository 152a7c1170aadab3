"""Regular expressions that are compiled when they are first used: compiling all of ours takes a sixth of every start."""

from __future__ import annotations

import re
from typing import Any, cast

_OFFERED = ("search", "match", "fullmatch", "finditer", "findall", "split", "sub", "subn", "pattern", "flags", "groups", "groupindex")


class _Later:
    def __init__(self, text: str, flags: int) -> None:
        self.__dict__["_made_of"] = (text, flags)

    def __getattr__(self, name: str) -> Any:
        if name not in _OFFERED:
            raise AttributeError(name)
        if name == "pattern":
            return self.__dict__["_made_of"][0]
        made = re.compile(*self.__dict__["_made_of"])
        self.__dict__.update((one, getattr(made, one)) for one in _OFFERED)
        return self.__dict__[name]


def lazy_compile(text: str, flags: int = 0) -> re.Pattern[str]:
    """As `re.compile`, but deferred: re.error comes with the first use. For what many runs never need."""
    return cast(re.Pattern[str], _Later(text, flags))
