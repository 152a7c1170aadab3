"""Lends a package of lfdoctor's environment to a training whose own environment lacks it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path


def import_from_path(name: str, place: str | None) -> None:
    """Make the package in the folder `place` importable as `name`, unless the environment has one. Raises ImportError."""
    if name in sys.modules or importlib.util.find_spec(name) is not None or not place:  # noqa: TID251 (msgspec, by its place)
        return
    spec = importlib.util.spec_from_file_location(name, Path(place) / "__init__.py", submodule_search_locations=[place])
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # built for another Python
        del sys.modules[name]
        raise ImportError(f"{name} of lfdoctor does not load here: {error}") from error


def lend_msgspec() -> None:
    """msgspec of the `lfdoctor run` that started this training, where the environment has none. Raises ImportError."""
    import_from_path("msgspec", os.environ.get("LFDOCTOR_MSGSPEC"))
