"""Plugins: rules, detectors, readers and reporters from other distributions, and the folders of rules in LFDOCTOR_RULES (`--rules`).

An entry point of group `lfdoctor` is a module that may define DETECTORS, READERS, REPORTERS (same form as ours) and RULES (a folder).
A plugin that fails to load produces a warning. Plugins cannot replace built-in names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


RULES = "LFDOCTOR_RULES"
"""Folders of rules of one's own, separated as in PATH; processes that are started inherit it."""


class Plugins(msgspec.Struct):
    """Contributions of all installed plugins, and load errors."""

    detectors: dict[str, Any] = {}
    readers: list[Any] = []
    reporters: dict[str, Any] = {}
    rules: list[Path] = []
    problems: list[str] = []


def load() -> Plugins:
    """Load every plugin; never raises."""
    found = Plugins()
    _take_own_rules(found)
    if not any(_may_offer(folder) for folder in dict.fromkeys(sys.path)):
        return found
    from importlib.metadata import entry_points

    for point in entry_points(group="lfdoctor"):
        try:
            _take(point, found)
        except Exception as error:  # a broken plugin must not stop an analysis
            found.problems.append(f"plugin {_name(point)}: {type(error).__name__}: {error}")
    return found


def _take_own_rules(found: Plugins) -> None:
    for name in filter(None, os.environ.get(RULES, "").split(os.pathsep)):
        if Path(name).is_dir():
            found.rules.append(Path(name))
        else:
            found.problems.append(f"{RULES}: {name}: no such folder")


def _may_offer(folder: str) -> bool:
    """Whether a distribution in this folder of sys.path has our group. Takes 2 ms; importing importlib.metadata takes 20 ms."""
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    try:
                        if b"[lfdoctor]" in Path(entry.path, "entry_points.txt").read_bytes():
                            return True
                    except (FileNotFoundError, NotADirectoryError):
                        continue
    except FileNotFoundError:
        return False
    except OSError:  # an archive or anything else only importlib can read
        return True
    return False


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
