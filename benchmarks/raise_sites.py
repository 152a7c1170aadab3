"""Every place of a Python source that raises an exception with a message: raise, assert, checks that raise, exceptions with a fixed text."""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from message_templates import Pieces, Scope, joined, templates

_CHECKS = {
    # torch/__init__.py: torch._check(condition, lambda: message) and its kin; transformers/utils: torch_compilable_check
    "_check": "RuntimeError",
    "_check_value": "ValueError",
    "_check_type": "TypeError",
    "_check_index": "IndexError",
    "_check_not_implemented": "NotImplementedError",
    "torch_compilable_check": "ValueError",
}
"""Functions that raise the message of their second argument -> the exception."""
_MESSAGE_CONSTANT = re.compile(r"_?[A-Z0-9_]*(?:ERROR|MESSAGE|MSG)[A-Z0-9_]*")
"""Names of module constants that hold the message of an exception raised elsewhere (transformers/utils/import_utils.py)."""
_EXCEPTION = re.compile(r"[A-Z]\w+")
_NESTED = ("body", "orelse", "finalbody")
_TEXT = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.Call, ast.IfExp)


class Site(NamedTuple):
    """A place that raises: `function` is qualified by its classes (`Trainer.train`), empty at module level; `exception` a class name."""

    function: str
    exception: str
    pieces: Pieces


def sites(source: bytes) -> list[Site]:
    """The sites of one file, in order; none if this Python cannot parse it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    scope = _scope(tree.body, None)
    return [*_constants(tree.body, scope), *_in_body(tree.body, (), scope)]


def _in_body(body: Sequence[ast.stmt], path: tuple[str, ...], scope: Scope) -> Iterator[Site]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _in_body(statement.body, (*path, statement.name), _scope(statement.body, scope))
        elif isinstance(statement, ast.ClassDef):
            yield from _own_message(statement, path, scope)
            yield from _in_body(statement.body, (*path, statement.name), scope)
        else:
            yield from _of_statement(statement, path, scope)
            for block in _blocks(statement):
                yield from _in_body(block, path, scope)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of statements directly inside a statement."""
    for field in _NESTED:
        yield getattr(statement, field, [])
    for inner in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield inner.body


def _of_statement(statement: ast.stmt, path: tuple[str, ...], scope: Scope) -> Iterator[Site]:
    function = ".".join(path)
    if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call):
        for pieces in _arguments(statement.exc, scope):
            yield Site(function, _class_name(statement.exc.func), pieces)
    elif isinstance(statement, ast.Assert) and statement.msg is not None:
        for pieces in templates(statement.msg, scope):
            yield Site(function, "AssertionError", pieces)
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        exception = _CHECKS.get(_class_name(call.func) or _last_name(call.func))
        message = call.args[1] if exception and len(call.args) > 1 else None
        if message is not None and exception:
            for pieces in templates(message.body if isinstance(message, ast.Lambda) else message, scope):
                yield Site(function, exception, pieces)


def _arguments(call: ast.Call, scope: Scope) -> Iterator[Pieces]:
    """Messages of `raise Class(...)`. Of several arguments each text counts, with unknown text around it: classes print them differently."""
    if len(call.args) == 1:
        yield from templates(call.args[0], scope)
        return
    keywords = [word.value for word in call.keywords if word.arg in ("message", "msg", "detail", "reason")]
    for argument in (*call.args, *keywords):
        if isinstance(argument, _TEXT):
            yield from (joined((None, *pieces, None)) for pieces in templates(argument, scope))


def _own_message(definition: ast.ClassDef, path: tuple[str, ...], scope: Scope) -> Iterator[Site]:
    """The text that an exception class passes to its base: `super().__init__(f"...")` in its `__init__`."""
    if not any(_last_name(base).endswith(("Error", "Exception", "Warning")) for base in definition.bases):
        return
    for method in definition.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            inner = _scope(method.body, scope)
            for statement in method.body:
                call = statement.value if isinstance(statement, ast.Expr) else None
                if isinstance(call, ast.Call) and _last_name(call.func) == "__init__" and call.args:
                    yield from (
                        Site(".".join((*path, definition.name)), definition.name, found) for found in templates(call.args[-1], inner)
                    )


def _constants(body: Sequence[ast.stmt], scope: Scope) -> Iterator[Site]:
    """Messages kept in constants of the module; which exception and function use them is unknown."""
    for statement in body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name) and isinstance(statement.value, _TEXT):
            if _MESSAGE_CONSTANT.fullmatch(statement.targets[0].id):
                for pieces in templates(_as_format(statement.value), scope):
                    yield Site("", "", pieces)


def _as_format(value: ast.expr) -> ast.expr:
    """The expression with `.format()` applied: such constants hold `{0}` for what is filled in where they are used."""
    return ast.Call(func=ast.Attribute(value=value, attr="format", ctx=ast.Load()), args=[], keywords=[])


def _scope(body: Sequence[ast.stmt], outer: Scope | None) -> Scope:
    """The texts assigned to names in a body, its nested blocks included, its functions and classes not."""
    names: dict[str, list[ast.expr]] = defaultdict(list)
    appended: set[str] = set()
    pending = list(body)
    while pending:
        statement = pending.pop(0)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
            if isinstance(statement.value, _TEXT):
                names[statement.targets[0].id].append(statement.value)
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            appended.add(statement.target.id)
        for block in _blocks(statement):
            pending += block
    return Scope(names, frozenset(appended), outer)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _class_name(node: ast.expr) -> str:
    """The name of an exception class; empty for a variable or a call that makes one."""
    name = _last_name(node)
    known = isinstance(getattr(builtins, name, None), type) or _EXCEPTION.fullmatch(name)
    return name if known else ""
