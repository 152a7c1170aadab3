"""What each version of LLaMA-Factory knows, out of rules/versions.yaml (benchmarks/make_versions.py writes it); read when first asked."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from doctor.support.package_files import rules_folder

Changes = Sequence[tuple[str, Any]]
"""(version, value) where something changed, oldest first; None: it does not exist from that version on."""

UNRELEASED = {"main": "main", "kt": "llamafactory-kt 0.9.6.dev0"}
"""Versions after the newest release, oldest first -> what a reader calls them: the development branch, and a fork built from it."""

MEGATRON = {"mcore_adapter": "USE_MCA=1", "megatron_bridge": "USE_MEGATRON_BRIDGE=1"}
"""Another trainer of `llamafactory-cli train` -> the environment variable that starts it."""

MCORE_SINCE = "0.9.4"
"""The first release with USE_MCA (train/mca)."""


@functools.cache
def _products() -> Mapping[str, Any]:
    raw: Mapping[str, Any] = msgspec.json.decode((rules_folder() / "versions.yaml").read_bytes())
    products: Mapping[str, Any] = raw["products"]
    return products


@functools.cache
def releases() -> tuple[str, ...]:
    """Every known version of LLaMA-Factory, oldest first; UNRELEASED last."""
    return tuple(_products()["llamafactory"]["versions"])


def newest() -> str:
    """The newest release."""
    return [version for version in releases() if version not in UNRELEASED][-1]


@functools.cache
def options_of(trainer: str) -> Mapping[str, Changes]:
    """The options of a trainer other than v0's plain one: megatron_bridge, mcore_adapter, v1, v1_plugins, eval, infer."""
    if trainer == "mcore_adapter":
        known = _products()["mcore_adapter"]["sections"]["options"]
        return {name: [(MCORE_SINCE, changes[-1][1])] for name, changes in known.items()}
    found: Mapping[str, Changes] = _products()["llamafactory"]["sections"][trainer]
    return found


def history(section: str, name: str) -> Changes:
    """What changed of one name: of `v0` an option of `llamafactory-cli train`, of `templates`, `pins`, ...; () if no version has it."""
    found: Changes = _products()["llamafactory"]["sections"][section].get(name, ())
    return found


def option_history(of: str, name: str) -> Changes:
    """What changed of an option of `llamafactory-cli train`; its versions are of the package `of`."""
    section = "v0" if of == "llamafactory" else "options"
    found: Changes = _products()[of]["sections"][section].get(name, ())
    return found


def at(changes: Changes, version: str) -> Any:
    """The value that a version has; None where it does not exist there."""
    place, value = releases().index(version), None
    for since, new in changes:
        if releases().index(since) > place:
            break
        value = new
    return value


def having(changes: Changes) -> list[str]:
    """The versions in which it exists, oldest first."""
    return [version for version in releases() if at(changes, version) is not None]


def names_at(section: str, version: str) -> frozenset[str]:
    """All names of a section that a version has."""
    return frozenset(name for name, changes in _products()["llamafactory"]["sections"][section].items() if at(changes, version) is not None)


def entries(section: str, version: str) -> Iterator[tuple[str, Any]]:
    """(name, value) of everything that a version has of a section."""
    for name, changes in _products()["llamafactory"]["sections"][section].items():
        value = at(changes, version)
        if value is not None:
            yield name, value


def shown(version: str) -> str:
    """A version as a reader knows it."""
    return UNRELEASED.get(version, version)
