"""Option values without pydantic.

From 0.27 on, typer converts every option value with pydantic, whose import takes 110 ms of processor time: a quarter of `lfdoctor analyze`
on a short log. Plain texts, paths, lists of them and defaults need no conversion; for any other value typer's own is called. Remove
this module once typer converts these types cheaply.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer.core


class _PlainParameter:
    """Replaces typer's runtime parameter of one option."""

    def __init__(self, option: Any, original: Any) -> None:
        self._option, self._original = option, original

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value that the command gets. Raises typer's own errors if it does not fit."""
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
            if kind == list[str] and all(type(part) is str for part in value):
                return list(value)
            if kind == list[Path] and all(isinstance(part, str | Path) for part in value):
                return [Path(part) for part in value]
        return self._original(self._option).coerce(value, param=param, ctx=ctx)


def without_pydantic() -> None:
    """Install the conversion in this process. Releases of typer that convert in another way are left unchanged."""
    for kind in (typer.core.TyperOption, typer.core.TyperArgument):
        original = getattr(kind, "get_runtime_param", None)
        if original is not None and not isinstance(original, _PlainMethod):
            kind.get_runtime_param = _PlainMethod(original)  # type: ignore[assignment,unused-ignore]


class _PlainMethod:
    """A descriptor that replaces `get_runtime_param`."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __get__(self, option: Any, owner: Any) -> Any:
        return self if option is None else lambda: _PlainParameter(option, self._original)
