"""The one way to libraries outside the core dependencies: each is imported when it is used, and a missing one names its extra.

Ruff (`banned-api`) and import-linter refuse every other import of them; tests/test_packaging.py checks that the extra named at each call
declares the library.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from doctor.errors import BAD_USAGE, DoctorError


class MissingPackage(DoctorError):
    """A library is not installed. The message says what it is needed for and the pip command that installs it."""


def need(module: str, extra: str, what: str = "this", exit_code: int = BAD_USAGE) -> Any:
    """The module. Raises MissingPackage ("`what` needs the package ...") if it, or something that it imports, is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise MissingPackage(f"{what} needs the package {missing}: {pip_install(extra)}", exit_code) from error


def optional(module: str, extra: str) -> Any:  # noqa: ARG001 (read by tests/test_packaging.py)
    """The module, or None if it cannot be imported. For libraries of `extra` that only make something faster or add figures."""
    try:
        return import_module(module)
    except ImportError:
        return None


def package_folder(module: str, extra: str) -> Path | None:  # noqa: ARG001 (read by tests/test_packaging.py)
    """The folder of an installed package, found without importing it; None if it is not installed."""
    try:
        found = find_spec(module)
    except (ImportError, ValueError):  # its parent is missing, or it was put into sys.modules by hand
        return None
    return Path(found.origin).parent if found and found.origin else None


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed. importlib.metadata costs 20 ms, this a directory listing."""
    for folder in sys.path:
        for found in Path(folder or ".").glob(f"{distribution}-*.dist-info"):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return None


def pip_install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'lfdoctor[{extra}]'"
