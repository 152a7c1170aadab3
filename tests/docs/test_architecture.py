"""docs/architecture.md answers where things are: every file that it names exists, and the floors it draws are the checked ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAX_MODULES, MAX_UNITS = 8, 24
"""Bounds of the tree: modules directly in doctor/, modules and packages together."""


def test_every_file_it_names_exists():
    """A page about the tree that names a moved file is worse than none."""
    named = re.findall(r"`((?:doctor|rules)/[\w/.-]+)`", PAGE)
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_picture_shows_every_package_in_the_checked_order():
    """The floors in the picture are those of import-linter."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"].startswith("Floors"))
    floors = [re.findall(r"doctor\.(\w+)", layer) for layer in layers]
    drawn = [re.findall(r"\w+", floor) for floor in PAGE.split("cli --> ", 1)[1].split("```")[0].split("-->")]
    assert [["cli"], *drawn] == [floor for floor in floors if floor != ["errors"]]


def test_the_tree_stays_small_at_the_top():
    """Few modules lie directly in the package, and few units in all."""
    modules = list((ROOT / "doctor").glob("*.py"))
    packages = [path for path in (ROOT / "doctor").iterdir() if (path / "__init__.py").exists()]
    assert len(modules) <= MAX_MODULES
    assert len(modules) + len(packages) <= MAX_UNITS
