"""docs/architecture.md answers where things are: every file that it names exists, and the floors it draws are the checked ones."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAX_MODULES, MAX_UNITS = 8, 24
"""Bounds of the tree: modules directly in doctor/, modules and packages together."""
MAX_LINES, MAX_LINES_OF_MOST = 350, 25
"""Lines of a file, and of nine functions in ten."""
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in ROOT.glob("doctor/**/*.py")}


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Every module, parsed."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


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


def test_files_and_functions_are_short():
    """No file beyond the bound, and nine functions in ten within theirs."""
    assert len(MODULES) > 300
    assert [name for name, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES] == []
    functions = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = sorted(node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno)
    assert lengths[len(lengths) * 9 // 10] <= MAX_LINES_OF_MOST


def imports(node: ast.AST) -> Iterator[str]:
    """The modules of doctor that a module imports, at any depth but under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom) and child.module in MODULES:
            yield from (full if (full := f"{child.module}.{alias.name}") in MODULES else child.module for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in MODULES)
        yield from imports(child)


def test_modules_do_not_import_each_other_in_a_circle():
    """Not even inside functions."""
    graph = {name: set(imports(tree)) - {name} for name, tree in trees().items()}
    assert sum(map(len, graph.values())) > 1000
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_packages_hold_no_logic():
    """An `__init__.py` hands names on; doctor's own loads the public ones when they are used first."""
    holding = [
        node.name for name, tree in trees().items() if MODULES[name].stem == "__init__" for node in tree.body if hasattr(node, "name")
    ]
    assert holding == ["__getattr__", "__dir__"]
