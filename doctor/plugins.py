"""Entry points: more rules, detectors, readers and reporters from other distributions.

Group `lfdoctor`; the value is a module that may define DETECTORS, READERS, REPORTERS (shaped like ours) and RULES (a folder).
A plugin that does not load costs one warning, and none may replace a built-in name.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import msgspec


class Plugins(msgspec.Struct):
    """What all installed plugins add, and what went wrong with them."""

    detectors: dict[str, Any] = {}
    readers: list[Any] = []
    reporters: dict[str, Any] = {}
    rules: list[Path] = []
    problems: list[str] = []


def load() -> Plugins:
    """Loads every plugin; never raises."""
    found = Plugins()
    for point in entry_points(group="lfdoctor"):
        try:
            _take(point, found)
        except Exception as error:  # a broken plugin must not break the doctor
            found.problems.append(f"plugin {_name(point)}: {type(error).__name__}: {error}")
    return found


def _take(point: EntryPoint, found: Plugins) -> None:
    module = point.load()
    for name, detector in _named(module, "DETECTORS"):
        found.detectors.setdefault(name, detector)
    for name, reporter in _named(module, "REPORTERS"):
        found.reporters.setdefault(name, reporter)
    found.readers += list(getattr(module, "READERS", ()))
    rules = getattr(module, "RULES", None)
    if rules is not None:
        found.rules.append(Path(rules))


def _named(module: Any, attribute: str) -> Iterator[tuple[str, Any]]:
    yield from getattr(module, attribute, {}).items()


def _name(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
