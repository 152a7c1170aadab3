"""Mutation testing of doctor/: break random lines, run the tests on each mutant, report the share of mutants killed.

    python benchmarks/code_mutation.py [--lines 60] [--seed 1] [--show] [--only doctor/planner]

Candidates are lines with a comparison, a Boolean operator, `not`, arithmetic, `min`/`max`, a number, `True`/`False`, the condition of an
`if`, or a call whose value is unused, outside texts and annotations. The mutation is chosen at random too. For each mutant the tests of
its package run first, then `LAST_TESTS`; a failure or a timeout kills it. Runs in a copy of the tree.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT_ONLY = ("doctor/words", "doctor/version.py", "doctor/__main__.py")
"""Paths without mutants, as they contain only text."""

TIMEOUT_SECONDS = 600
"""Limit of a test run without a measured time, in seconds."""

LAST_TESTS = ("tests/test_fixtures.py", "tests/diagnosis", "tests/cli", "tests/reporters")
"""Run after the tests of the mutant's own package."""
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
"""Comparison -> its mutation."""

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
"""Arithmetic operator -> its mutation."""

OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any"}
"""Built-in function -> its mutation."""


def broken(node: ast.AST) -> list[str]:
    """Mutations of a node as source text; empty if it has none."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        return [ast.unparse(ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators))]
    if isinstance(node, ast.BoolOp):
        other: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return [ast.unparse(ast.BoolOp(other, node.values))]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return [f"bool({ast.unparse(node.operand)})"]
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
        return [f"({ast.unparse(ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))})"]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return [str(not node.value)]
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):  # a bool is handled above
        return [repr(node.value + 1), repr(node.value * 2)] if node.value else ["1"]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OPPOSITE:
        return [ast.unparse(ast.Call(ast.Name(OPPOSITE[node.func.id]), node.args, node.keywords))]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ["pass"]
    return []


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str)) for part in ast.walk(node)
    )


def mutants(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, original code, whole mutated file) for every mutation of a file."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    skipped = {id(part) for node in ast.walk(tree) for part in _not_run(node)}
    tests = {id(node.test) for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp | ast.While)}
    for node in ast.walk(tree):
        if id(node) in skipped or not isinstance(node, ast.expr | ast.stmt) or node.lineno != node.end_lineno:
            continue
        row = lines[node.lineno - 1].encode()
        start, stop = node.col_offset, node.end_col_offset
        turned = [f"(not ({ast.unparse(node)}))"] if id(node) in tests and isinstance(node, ast.Name | ast.Attribute | ast.Call) else []
        for text in (*broken(node), *turned):
            changed = (row[:start] + text.encode() + row[stop:]).decode()
            whole = "".join([*lines[: node.lineno - 1], changed, *lines[node.lineno :]])
            try:
                ast.parse(whole)
            except SyntaxError:  # inside an f-string, for instance
                continue
            yield node.lineno, f"{row[start:stop].decode()} -> {text}", whole


def _not_run(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that tests need not cover: annotations, imports for type checkers, texts."""
    if isinstance(node, ast.AnnAssign):
        yield from ast.walk(node.annotation)
    elif isinstance(node, ast.FunctionDef):
        for argument in [*node.args.args, *node.args.kwonlyargs]:
            yield from ast.walk(argument)
        yield from ast.walk(node.returns) if node.returns else ()
    elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        yield from ast.walk(node)


def tests_of(path: Path) -> list[str]:
    """The tests of a file's package, if there are any."""
    folder = ROOT / "tests" / path.relative_to(ROOT / "doctor").parts[0]
    return [str(folder.relative_to(ROOT))] if folder.is_dir() else []


def passes(tree: Path, tests: list[str]) -> bool:
    """Whether all of these tests pass in the copied tree."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(  # our own tests
            command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree), "LFDOCTOR_CACHE": "off"}, timeout=TIMEOUT_SECONDS, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    """Print each mutant and whether it was killed, then the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="doctor")
    given = parser.parse_args()
    dice = random.Random(given.seed)
    candidates: dict[tuple[Path, int], list[tuple[str, str]]] = {}
    for path in sorted((ROOT / given.only).rglob("*.py")):
        if not str(path.relative_to(ROOT)).startswith(TEXT_ONLY):
            for line, what, whole in mutants(path):
                candidates.setdefault((path, line), []).append((what, whole))
    killed = 0
    chosen = dice.sample(sorted(candidates), min(given.lines, len(candidates)))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".lab", "__pycache__", "build"))
        for number, (path, line) in enumerate(chosen, 1):
            what, whole = dice.choice(candidates[path, line])
            copy = tree / path.relative_to(ROOT)
            copy.write_text(whole, encoding="utf-8")
            dead = not passes(tree, tests_of(path)) if tests_of(path) else False
            dead = dead or not passes(tree, list(LAST_TESTS))
            shutil.copyfile(path, copy)
            killed += dead
            print(f"{number:3} {'killed  ' if dead else 'SURVIVED'} {path.relative_to(ROOT)}:{line}  {what}", flush=True)
    print(f"{killed} of {len(chosen)} killed ({100 * killed / len(chosen):.0f} %), {len(candidates)} lines could have been chosen")


if __name__ == "__main__":
    main()
