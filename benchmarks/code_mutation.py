"""Mutation testing of doctor/: break random lines, run the tests on each mutant, report the share of mutants killed.

    python benchmarks/code_mutation.py [--lines 60] [--seed 1] [--only doctor/planner] [--jobs 2] [--show] [--reached FOLDER]
                                       [--pick PATH:LINE ...] [--tests PATH ...]

Candidates are lines with a comparison, a Boolean operator, `not`, arithmetic, `min`/`max`, a number, `True`/`False`, the condition of an
`if`, or a call whose value is unused, outside texts and annotations. The mutation is chosen at random too. First the tests run once on
unbroken code in which each chosen line notes the tests that reach it; `--reached` keeps the result for later calls with the same sample.
Each mutant then gets the tests that reach its line, quickest first, up to `BUDGET`; a line that runs at import gets the tests that name its
module and those of its package as well. A test kills only if it fails again when it runs alone. `--pick` takes some lines of the sample,
`--tests` gives the tests to run: a survivor that now has a test needs no new search. `--show` names the test that killed.
"""

from __future__ import annotations

import argparse
import ast
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TEXT_ONLY = ("doctor/words", "doctor/version.py", "doctor/__main__.py")
"""Paths without mutants, as they contain only text."""

NOT_HERE = ("tests/lab", "tests/browser", "tests/docs", "tests/test_packaging.py")
"""Tests that no mutant is run on: they need LLaMA-Factory or a browser, or they test the wheel and the pages rather than the code."""

BUDGET = 120
"""Tests of one mutant end here, in seconds that they take on unbroken code."""

SLOWER = 5
"""A test run that takes this many times its usual time, and a minute more, is stopped: the mutant hangs."""

FAILED = re.compile(r"^FAILED (\S+?::[^\[\n]*?(?:\[.*?\])?)(?= - |$)", re.MULTILINE)
"""A failed test in pytest's summary."""

NOTE = """
import os
_seen = set()
def reach(place):
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if (place, test) not in _seen:
        _seen.add((place, test))
        with open({hits!r}, "a", encoding="utf-8") as file:
            file.write(f"{{place}}\\t{{test}}\\n")
"""
"""The module doctor/reached.py of the copy whose chosen lines note who reaches them."""

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


class Mutant(NamedTuple):
    """One mutation: the file from the root, the line, both in words, and the line when broken and when it notes who reaches it."""

    path: str
    line: int
    what: str
    broken: str
    noting: str

    @property
    def place(self) -> str:
        """`doctor/x.py:7`."""
        return f"{self.path}:{self.line}"


def mutants(path: Path) -> Iterator[Mutant]:
    """Every mutation of a file."""
    name, source = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    skipped = {id(part) for node in ast.walk(tree) for part in _not_run(node)}
    tests = {id(node.test) for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp | ast.While)}
    for top, node in ((statement, node) for statement in tree.body for node in ast.walk(statement)):
        if id(node) in skipped or not isinstance(node, ast.expr | ast.stmt) or node.lineno != node.end_lineno:
            continue
        row = lines[node.lineno - 1].encode()
        start, stop = node.col_offset, node.end_col_offset
        before, old, after = (part.decode() for part in (row[:start], row[start:stop], row[stop:]))
        noting = f"{before}(__import__('doctor.reached', fromlist=['reach']).reach('{name}:{node.lineno}') or {old}){after}"
        turned = [f"(not ({ast.unparse(node)}))"] if id(node) in tests and isinstance(node, ast.Name | ast.Attribute | ast.Call) else []
        for text in (*broken(node), *turned):
            if _parses(lines, top, node.lineno, f"{before}{text}{after}"):  # not so inside an f-string, for instance
                yield Mutant(name, node.lineno, f"{old} -> {text}", f"{before}{text}{after}", noting)


def _parses(lines: list[str], top: ast.stmt, number: int, row: str) -> bool:
    """Whether a statement of the module is Python with one of its rows replaced."""
    first = min([top.lineno, *(decorator.lineno for decorator in getattr(top, "decorator_list", ()))])
    try:
        ast.parse("".join([*lines[first - 1 : number - 1], row, *lines[number : top.end_lineno]]))
    except SyntaxError:
        return False
    return True


def edited(path: str, rows: Mapping[int, str]) -> str:
    """A file with some of its rows replaced."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(rows.get(number, row) for number, row in enumerate(lines, 1))


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


def _noted(mutant: Mutant) -> bool:
    """Whether the line can note who reaches it: the pattern of a `case` cannot."""
    try:
        ast.parse(edited(mutant.path, {mutant.line: mutant.noting}))
    except SyntaxError:
        return False
    return True


class Suite:
    """The tests: how long each takes on unbroken code and which chosen line it reaches."""

    def __init__(self, folder: Path, chosen: Sequence[Mutant], jobs: int, clean: Path, noting: Path) -> None:
        """Run them once in `noting` if `folder` does not hold the result yet; those that fail in `clean` as well are left out."""
        self.clean = clean
        report, hits = folder.resolve() / "tests.xml", folder.resolve() / "hits.txt"
        if not report.exists():
            folder.mkdir(parents=True, exist_ok=True)
            hits.write_text("")
            (noting / "doctor" / "reached.py").write_text(NOTE.format(hits=str(hits)), encoding="utf-8")
            for path in {mutant.path for mutant in chosen}:
                rows = {mutant.line: mutant.noting for mutant in chosen if mutant.path == path and _noted(mutant)}
                (noting / path).write_text(edited(path, rows), encoding="utf-8")
            pytest(noting, ["tests", f"--junitxml={report}", "-n", str(jobs), "--dist", "worksteal"], None)
        cases = [
            (f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}", case) for case in ET.parse(report).iter("testcase")
        ]
        self.seconds = {test: float(case.get("time") or 0) for test, case in cases}
        failed = [test for test, case in cases if case.find("failure") is not None or case.find("error") is not None]
        for test in (test for test in failed if pytest(clean, [test], None)[0] != 0):
            print(f"left out, as it fails on unbroken code: {test}", flush=True)
            del self.seconds[test]
        self.reached: dict[str, set[str]] = {}
        for row in hits.read_text(encoding="utf-8").splitlines():
            place, _, test = row.partition("\t")
            self.reached.setdefault(place, set()).add(test)

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests to run, quickest first, up to the budget."""
        reaching = self.reached.get(mutant.place, set())
        if "" in reaching:  # at import, for which no test stands
            near = self._near(mutant.path)
            reaching = reaching | {test for test in self.seconds if test.partition("::")[0] in near}
        total, out = 0.0, []
        for test in sorted(reaching & self.seconds.keys(), key=self.seconds.__getitem__):
            total += self.seconds[test]
            if total < BUDGET:
                out.append(test)
        return out

    def _near(self, path: str) -> set[str]:
        """The test files that name the module, and those of its package."""
        package, _, module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".").rpartition(".")
        named = re.compile(rf"\b{re.escape(package)}\.{module}\b|from {re.escape(package)} import .*\b{module}\b")
        files = {test.partition("::")[0] for test in self.seconds}
        here = f"tests/{path.split('/')[1]}/"
        return {file for file in files if file.startswith(here) or named.search((self.clean / file).read_text(encoding="utf-8"))}

    def killer(self, tree: Path, tests: list[str]) -> str | None:
        """The test that fails on the mutant in `tree`, again when it runs alone; None if none does."""
        limit = 60 + SLOWER * sum(self.seconds.get(test, 60) for test in tests)
        while tests:
            code, out = pytest(tree, ["-x", *tests], limit)
            if code == 0:
                break
            failed = FAILED.search(out)
            if failed is None:
                return "timeout" if code is None else "cannot be imported"
            if pytest(tree, [failed[1]], limit)[0] != 0:
                return failed[1]
            tests = [test for test in tests if test != failed[1]]
        return None


def pytest(tree: Path, arguments: list[str], limit: float | None) -> tuple[int | None, str]:
    """Exit code (None after `limit` seconds) and output of these tests in a copied tree."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", *arguments]
    command += [f"--ignore={path}" for path in NOT_HERE]
    environment = {**os.environ, "PYTHONPATH": str(tree), "LFDOCTOR_CACHE": "off", "COLUMNS": "1000"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:  # a pipe stays open in a child that outlives pytest
        child = subprocess.Popen(command, cwd=tree, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        return code, out.read()


def sample(only: str, lines: int, seed: int) -> tuple[list[Mutant], int]:
    """The mutants of the chosen lines, and the number of lines to choose from."""
    dice = random.Random(seed)
    candidates: dict[tuple[Path, int], list[Mutant]] = {}
    for path in [ROOT / only] if only.endswith(".py") else sorted((ROOT / only).rglob("*.py")):
        if not path.relative_to(ROOT).as_posix().startswith(TEXT_ONLY):
            for mutant in mutants(path):
                candidates.setdefault((path, mutant.line), []).append(mutant)
    chosen = dice.sample(sorted(candidates), min(lines, len(candidates)))
    return [dice.choice(candidates[place]) for place in chosen], len(candidates)


class Trial:
    """Runs tests on one mutant, in a copy that no other thread uses."""

    def __init__(self, suite: Suite, trees: Sequence[Path], tests: list[str] | None, show: bool) -> None:
        """`trees` are as many copies as there are threads; `tests` are run on each mutant in place of those that reach its line."""
        self._suite, self._tests, self._show = suite, tests, show
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for tree in trees:
            self._free.put(tree)

    def __call__(self, mutant: Mutant) -> bool:
        """Whether the mutant is killed; prints it."""
        tree, began = self._free.get(), time.monotonic()
        tests = self._tests or self._suite.tests(mutant)
        (tree / mutant.path).write_text(edited(mutant.path, {mutant.line: mutant.broken}), encoding="utf-8")
        test = self._suite.killer(tree, tests)
        (tree / mutant.path).write_text(edited(mutant.path, {}), encoding="utf-8")
        self._free.put(tree)
        by = f"  [{time.monotonic() - began:.0f} s, {len(tests)} tests{', ' + test if test else ''}]" if self._show else ""
        print(f"{'killed  ' if test else 'SURVIVED'} {mutant.place}  {mutant.what}{by}", flush=True)
        return test is not None


def main() -> None:
    """Print each mutant and whether it was killed, then the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="doctor")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--reached", type=Path)
    parser.add_argument("--pick", nargs="*")
    parser.add_argument("--tests", nargs="*")
    given = parser.parse_args()
    chosen, total = sample(given.only, given.lines, given.seed)
    with tempfile.TemporaryDirectory() as folder:
        clean, noting, *trees = (Path(folder) / name for name in ("clean", "noting", *map(str, range(given.jobs))))
        for tree in (clean, noting, *trees):
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".lab", "__pycache__", "build"))
        suite = Suite(given.reached or Path(folder) / "reached", chosen, given.jobs, clean, noting)
        picked = [mutant for mutant in chosen if not given.pick or mutant.place in given.pick]
        with ThreadPoolExecutor(given.jobs) as pool:
            dead = sum(pool.map(Trial(suite, trees, given.tests, given.show), picked))
    print(f"{dead} of {len(picked)} killed ({100 * dead / len(picked):.0f} %), {total} lines could have been chosen")


if __name__ == "__main__":
    main()
