"""Executes docs/notebooks/first-failure.ipynb cell by cell and writes what the cells show into it (`make docs`).

    .venv/bin/python docs/make_notebook.py [--check]

With --check nothing is written, and the exit code is 1 where the notebook's outputs are not what its cells show today. The cells are plain
Python, so no kernel is needed; the file is an ordinary notebook, which Jupyter and Colab run as well.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "first-failure.ipynb"
sys.path.insert(0, str(ROOT))


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, run from top to bottom in the notebook's folder, as Jupyter does."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell = {**cell, "execution_count": count, "outputs": outputs("".join(cell["source"]), names, count)}
        cells.append(cell)
    return {**notebook, "cells": cells}


def outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What a cell prints, and the value of its last expression as HTML and as text."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(tree, "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None
    out: list[dict[str, Any]] = []
    if said.getvalue():
        out.append({"name": "stdout", "output_type": "stream", "text": lines(said.getvalue())})
    if value is not None:
        data = {"text/html": lines(value._repr_html_())} if hasattr(value, "_repr_html_") else {}
        data["text/plain"] = lines(repr(value) if not data else f"<{type(value).__name__}>")
        out.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return out


def lines(text: str) -> list[str]:
    """A text as notebooks store it."""
    return text.splitlines(keepends=True)


def main() -> int:
    """Writes the notebook, or says whether it is current."""
    os.chdir(NOTEBOOK.parent)
    before = NOTEBOOK.read_text(encoding="utf-8")
    after = json.dumps(executed(json.loads(before)), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        return int(before != after)
    NOTEBOOK.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
