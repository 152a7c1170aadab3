"""Text options without pydantic: typer from 0.27 on loads it for every value (80 ms of each start), also where a text stays a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer.core


class Text:
    """Stands in for typer's conversion of one option: texts, paths, lists of them and defaults as they are, else typer's own."""

    def __init__(self, option: Any, typers_own: Any) -> None:
        self._option, self._typers_own = option, typers_own

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value for the command; typer's own errors where it does not fit."""
        kind = getattr(getattr(self._option, "type_descriptor", None), "annotation", None)
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if kind is str and type(value) is str and not many:
            return value
        if kind in (int, float) and type(value) is kind and value == getattr(self._option, "default", None):
            return value
        if kind is Path and isinstance(value, str | Path) and not many:
            return Path(value)
        if many and isinstance(value, tuple | list):
            if kind == list[str] and all(type(one) is str for one in value):
                return list(value)
            if kind == list[Path] and all(isinstance(one, str | Path) for one in value):
                return [Path(one) for one in value]
        return self._typers_own(self._option).coerce(value, param=param, ctx=ctx)


def without_pydantic() -> None:
    """From now on in this process; typers that convert in another way stay as they are."""
    for kind in (typer.core.TyperOption, typer.core.TyperArgument):
        own = getattr(kind, "get_runtime_param", None)
        if own is not None and not isinstance(own, _Light):
            kind.get_runtime_param = _Light(own)  # type: ignore[assignment,unused-ignore]


class _Light:
    def __init__(self, typers_own: Any) -> None:
        self._typers_own = typers_own

    def __get__(self, option: Any, owner: Any) -> Any:
        return self if option is None else lambda: Text(option, self._typers_own)
