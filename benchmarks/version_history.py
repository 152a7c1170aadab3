"""rules/versions.yaml: what each version knows, as the versions at which it changed. Adding a version is exact in any order."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from version_knowledge import Knowledge
from version_sources import Source

Data = dict[str, Any]
"""{"products": {PRODUCT: {"versions": [names, oldest first], "sections": {SECTION: {NAME: [[version, value], ...]}}}}}; a value holds
from its version on, null for "does not exist"."""

ABOUT = (
    "What each version of LLaMA-Factory, transformers and mcore_adapter knows: [version, value] from that version on, null: not there; "
    "main and kt (the fork llamafactory-kt) come after every release. Written by "
    "benchmarks/make_versions.py; JSON on purpose (it is YAML, and loads faster)"
)
PRODUCTS = ("llamafactory", "transformers", "mcore_adapter")


UNRELEASED = ("main", "kt")
"""Versions after every release: the development branch, and the fork llamafactory-kt that is built from it."""


def order(version: str) -> tuple[int, ...]:
    """A version's place among the others; UNRELEASED come last."""
    if version in UNRELEASED:
        return (10**6, UNRELEASED.index(version))
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def without_help(known: Knowledge) -> dict[str, dict[str, str]]:
    """Take the help texts out of the knowledge: section -> option -> text."""
    told: dict[str, dict[str, str]] = {}
    for section, names in known.items():
        for name, entry in names.items():
            for option, part in [(name, entry), *((f"{name}.{key}", value) for key, value in _parts(entry))]:
                text = part.pop("help", None) if isinstance(part, dict) else None
                if isinstance(text, str):
                    told.setdefault(section, {})[option] = text
    return told


def _parts(entry: Any) -> list[tuple[str, Any]]:
    """The settings of a plugin."""
    return [(key, value) for key, value in entry.items() if isinstance(value, dict)] if isinstance(entry, dict) else []


def insert(data: Data, source: Source, known: Knowledge) -> int:
    """Put a version into the data, in place of what was known of it; its place in the list of versions."""
    product = data["products"].setdefault(source.product, {"versions": [], "sections": {}})
    snapshots = {version: at(product, version) for version in product["versions"]}
    snapshots[source.name] = known
    versions = sorted(snapshots, key=order)
    product["versions"] = versions
    sections = sorted({section for snapshot in snapshots.values() for section in snapshot})
    product["sections"] = {section: _history(section, versions, snapshots) for section in sections}
    return versions.index(source.name)


def at(product: Mapping[str, Any], version: str) -> Knowledge:
    """What one version knows."""
    found: Knowledge = {}
    for section, names in product["sections"].items():
        here = {name: value for name, changes in names.items() if (value := value_at(changes, version)) is not None}
        if here:
            found[section] = here
    return found


def value_at(changes: list[list[Any]], version: str) -> Any:
    """The value that a version has; None where it does not exist there."""
    value = None
    for since, new in changes:
        if order(since) > order(version):
            break
        value = new
    return value


def _history(section: str, versions: list[str], snapshots: Mapping[str, Knowledge]) -> dict[str, list[list[Any]]]:
    names = sorted({name for snapshot in snapshots.values() for name in snapshot.get(section, {})})
    out: dict[str, list[list[Any]]] = {}
    for name in names:
        changes: list[list[Any]] = []
        for version in versions:
            value = snapshots[version].get(section, {}).get(name)
            if json.dumps(value) != json.dumps(changes[-1][1] if changes else None):  # 1 is not 1.0, nor True
                changes.append([version, value])
        out[name] = changes
    return out


def text(data: Data) -> str:
    """The file: one name a line, so that its diff can be read."""
    products = []
    for product in (name for name in PRODUCTS if name in data["products"]):
        known = data["products"][product]
        sections = [
            f"{json.dumps(section)}: {{\n" + ",\n".join(f"{_json(name)}: {_json(changes)}" for name, changes in names.items()) + "\n}"
            for section, names in known["sections"].items()
        ]
        body = f'"versions": {_json(known["versions"])}, "sections": {{\n' + ",\n".join(sections) + "\n}"
        products.append(f"{json.dumps(product)}: {{{body}}}")
    return f'{{"_about": {_json(ABOUT)},\n"products": {{\n' + ",\n".join(products) + "\n}}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
