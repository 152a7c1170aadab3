"""The libraries that only many runs need: imported when they are used, with an error that says what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from doctor.errors import DoctorError


def need(module: str, extra: str = "fleet") -> Any:
    """The module, imported now. Raises DoctorError (2) that names the extra to install where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise DoctorError(f"this needs the package {missing}: pip install 'lfdoctor[{extra}]'") from error


def find(module: str) -> Any | None:
    """The module, imported now; None where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return None
