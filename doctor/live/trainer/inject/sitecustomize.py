# ruff: noqa: PTH100, PTH118, PTH120
# (pathlib would cost every start of Python 10 ms)
"""Python runs this at start-up because `lfdoctor run` put this folder on PYTHONPATH: waits for a trainer to be imported.

Does nothing without LFDOCTOR_DIR, or in a process that never imports a trainer. Must not import anything heavy, and must not fail.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
WATCHED = ("transformers.trainer", "llamafactory.v1.utils.callbacks.trainer_callback")


def elsewhere() -> None:
    """The sitecustomize that this one hides (Debian's, an IDE's, a coverage tool's) runs as it would have."""
    paths = [path for path in sys.path if os.path.abspath(path or os.curdir) != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", paths)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


class Finder:
    """Lets the others find a watched module, and adds one call behind its execution."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if finder is not self and find is not None else None
            if spec is not None:
                follow(spec)
                return spec
        return None


def follow(spec: Any) -> None:
    """After the module has run: `doctor.live.trainer.hook.attach(module)`, whatever may come of it."""
    run = getattr(spec.loader, "exec_module", None)
    if run is None:
        return

    def exec_module(module: Any) -> None:
        run(module)
        try:
            load_doctor()
            from doctor.live.trainer.hook import attach

            attach(module)
        except Exception as error:
            sys.stderr.write(f"lfdoctor: not watching this training: {type(error).__name__}: {error}\n")

    with contextlib.suppress(AttributeError):  # a loader that cannot be changed is left alone
        spec.loader.exec_module = exec_module


def load_doctor() -> None:
    """The package `doctor` this file belongs to, by its place: nothing else of its environment becomes importable."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
    known = sys.modules.get("doctor")
    if known is None or os.path.dirname(os.path.abspath(known.__file__ or "")) != root:
        spec: Any = importlib.util.spec_from_file_location("doctor", os.path.join(root, "__init__.py"), submodule_search_locations=[root])
        module = importlib.util.module_from_spec(spec)
        sys.modules["doctor"] = module
        spec.loader.exec_module(module)


if os.environ.get("LFDOCTOR_DIR"):
    sys.meta_path.insert(0, Finder())
elsewhere()
