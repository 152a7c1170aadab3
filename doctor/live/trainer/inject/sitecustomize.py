# ruff: noqa: PTH100, PTH118, PTH120
# (pathlib would cost every start of Python 10 ms)
"""Python runs this at start-up because `lfdoctor run` puts this folder on PYTHONPATH: waits for a trainer to be imported.

Does nothing without LFDOCTOR_DIR, or in a process that never imports a trainer. Must not import anything heavy, and must not fail.

The package is loaded under the name `_lfdoctor`, never `doctor`: a module of that name in the training is the user's own.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
"""The folder of the package."""
NAME = "_lfdoctor"
"""Its name in this process."""
WATCHED = ("transformers.trainer", "llamafactory.v1.utils.callbacks.trainer_callback")


def run_hidden_sitecustomize() -> None:
    """Run the sitecustomize that this one hides (Debian's, an IDE's, a coverage tool's)."""
    paths = [path for path in sys.path if os.path.abspath(path or os.curdir) != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", paths)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


class TrainerImportHook:
    """Finds our package under its private name, and adds a call after the execution of a watched module."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] == NAME:
            return private_spec(name, path)
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if finder is not self and find is not None else None
            if spec is not None:
                attach_after(spec)
                return spec
        return None


def attach_after(spec: Any) -> None:
    """Once the module has run, call `attach(module)` of doctor/live/trainer/hook.py; its errors are logged."""
    run = getattr(spec.loader, "exec_module", None)
    if run is None:
        return

    def exec_module(module: Any) -> None:
        run(module)
        try:
            importlib.import_module(f"{NAME}.live.trainer.hook").attach(module)  # noqa: TID251 (ours, under its private name)
        except Exception as error:
            sys.stderr.write(f"lfdoctor: not watching this training: {type(error).__name__}: {error}\n")

    with contextlib.suppress(AttributeError):  # a loader that cannot be changed is left alone
        spec.loader.exec_module = exec_module


def private_spec(name: str, path: Any) -> Any:
    """The spec of our package or one of its modules, found by place: nothing else of its environment becomes importable."""
    if name == NAME:
        place = os.path.join(ROOT, "__init__.py")
        return importlib.util.spec_from_file_location(name, place, loader=PrivateLoader(name, place), submodule_search_locations=[ROOT])
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        spec.loader = PrivateLoader(name, spec.loader.path)
    return spec


class PrivateLoader(importlib.machinery.SourceFileLoader):
    """Loads a module of ours unchanged (with its cached bytecode); its `import doctor...` statements mean the private package.

    The import statement calls `__import__` of the module's own `__builtins__`, which are replaced here.
    """

    def exec_module(self, module: Any) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": private_import}
        super().exec_module(module)


def private_import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    """`__import__` for our modules: `doctor` is the private package."""
    if level == 0 and name.partition(".")[0] == "doctor":
        name = NAME + name[len("doctor") :]
    return builtins.__import__(name, globals, locals, fromlist, level)


if os.environ.get("LFDOCTOR_DIR"):
    sys.meta_path.insert(0, TrainerImportHook())
run_hidden_sitecustomize()
