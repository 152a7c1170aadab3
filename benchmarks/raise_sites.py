"""Every place of a Python source that raises an exception with a message: raise, assert, checks that raise, classes with a fixed text."""

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
_MESSAGE_KEYWORDS = ("message", "msg", "detail", "reason")
_TOP_LEVEL = re.compile(rb"^(?=[A-Za-z_@])", re.MULTILINE)
_CONSTANT = re.compile(rb"([A-Z_][A-Z0-9_]+) = \(?\s*[rf]*['\"]")
_CLASS = re.compile(rb"class\s+\w+\s*(?:\([^()]*\))?:")
_METHOD = re.compile(rb"^(?=    (?:def|async def|class|@)[ \w])", re.MULTILINE)
_RAISES = re.compile(rb"^\s*(?:raise|assert)\b|_check\w*\(|super\(.*\)\.__init__\(|(?:Error|Exception)[(,]|return cls\(", re.MULTILINE)
_TEXT = (ast.Constant, ast.JoinedStr, ast.BinOp, ast.Call, ast.IfExp)


class Site(NamedTuple):
    """A place that raises: `function` is qualified by its classes (`Trainer.train`), empty at module level; `exception` a class name."""

    function: str
    exception: str
    pieces: Pieces


def parts(source: bytes) -> list[bytes]:
    """What of a file has to be parsed: its functions and methods that can raise, each with the constants that it names.

    Releases share most of these parts, and they are a quarter of the sources. Where `sites` refuses one (it began inside a string), the
    whole file has to be parsed.
    """
    chunks = _TOP_LEVEL.split(source)
    constants = {found[1]: chunk for chunk in chunks if (found := _CONSTANT.match(chunk))}
    wanted = [part for chunk in chunks for part in _methods(chunk) if _RAISES.search(part)]
    named = [b"".join(text for name, text in constants.items() if name in part) for part in wanted]
    messages = [chunk for name, chunk in constants.items() if _MESSAGE_CONSTANT.fullmatch(name.decode())]
    return [constant + part for constant, part in zip(named, wanted, strict=True)] + messages


def _methods(chunk: bytes) -> list[bytes]:
    """The methods of a top-level class, each under the class's first line; anything else as it is."""
    header = _CLASS.match(chunk)
    if header is None:
        return [chunk]
    first, *methods = _METHOD.split(chunk)
    return [first, *(header[0] + b"\n" + method for method in methods)]


def sites(source: bytes) -> list[Site] | None:
    """The sites of a part, in order; None if it is no whole Python source."""
    tree = _parsed(source)
    if tree is None:
        return None
    scope = _scope(tree.body, None)
    return [*_constants(tree.body, scope), *_in_body(tree.body, (), scope)]


def _parsed(source: bytes) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None


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
    for field in ("body", "orelse", "finalbody"):
        yield getattr(statement, field, [])
    for inner in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield inner.body


def _of_statement(statement: ast.stmt, path: tuple[str, ...], scope: Scope) -> Iterator[Site]:
    function = ".".join(path)
    if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call):
        exception = _class_name(statement.exc.func)
        yield from (Site(function, exception, pieces) for pieces in _arguments(statement.exc, scope))
    elif isinstance(statement, ast.Assert) and statement.msg is not None:
        yield from (Site(function, "AssertionError", pieces) for pieces in templates(statement.msg, scope))
    elif isinstance(statement, ast.Expr | ast.Return | ast.Assign) and isinstance(statement.value, ast.Call):
        yield from _of_call(statement.value, path, scope)


def _of_call(call: ast.Call, path: tuple[str, ...], scope: Scope) -> Iterator[Site]:
    """Calls that raise a message, and exceptions that are made here and raised elsewhere: `return ValueError(...)`."""
    function, name = ".".join(path), _last_name(call.func)
    own_class = path[-2] if name == "cls" and len(path) > 1 else name
    if own_class.endswith(("Error", "Exception")):
        yield from (Site(function, own_class, pieces) for pieces in _arguments(call, scope))
        return
    first = _last_name(call.args[0]) if len(call.args) > 1 else ""
    exception = _CHECKS.get(name) or (first if first.endswith(("Error", "Exception")) else "")
    if exception and len(call.args) > 1:
        message = call.args[1].body if isinstance(call.args[1], ast.Lambda) else call.args[1]
        yield from (Site(function, exception, pieces) for pieces in templates(message, scope))
    for argument in call.args:
        if isinstance(argument, ast.Call) and _last_name(argument.func).endswith(("Error", "Exception")):
            yield from (Site(function, _last_name(argument.func), pieces) for pieces in _arguments(argument, scope))


def _arguments(call: ast.Call, scope: Scope) -> Iterator[Pieces]:
    """Messages of `raise Class(...)`. Of several arguments each text counts, unknown text around it: classes print them differently."""
    if len(call.args) == 1:
        yield from templates(call.args[0], scope)
        return
    for argument in (*call.args, *(word.value for word in call.keywords if word.arg in _MESSAGE_KEYWORDS)):
        if isinstance(argument, _TEXT):
            yield from (joined((None, *pieces, None)) for pieces in templates(argument, scope))


def _own_message(definition: ast.ClassDef, path: tuple[str, ...], scope: Scope) -> Iterator[Site]:
    """The text that an exception class passes to its base: `super().__init__(f"...")` in its `__init__`."""
    if not any(_last_name(base).endswith(("Error", "Exception", "Warning")) for base in definition.bases):
        return
    function = ".".join((*path, definition.name))
    for method in definition.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            inner = _scope(method.body, scope)
            for statement in method.body:
                call = statement.value if isinstance(statement, ast.Expr) else None
                if isinstance(call, ast.Call) and _last_name(call.func) == "__init__" and call.args:
                    yield from (Site(function, definition.name, found) for found in templates(call.args[-1], inner))


def _constants(body: Sequence[ast.stmt], scope: Scope) -> Iterator[Site]:
    """Messages kept in constants of the module; which exception and function use them is unknown."""
    for statement in body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(statement, ast.Assign) and isinstance(target, ast.Name) and _MESSAGE_CONSTANT.fullmatch(target.id):
            yield from (Site("", "", pieces) for pieces in templates(_as_format(statement.value), scope))


def _as_format(value: ast.expr) -> ast.expr:
    """The expression with `.format()` applied: such constants hold `{0}` for what is filled in where they are used."""
    return ast.Call(func=ast.Attribute(value=value, attr="format", ctx=ast.Load()), args=[], keywords=[])


def _scope(body: Sequence[ast.stmt], outer: Scope | None) -> Scope:
    """The texts assigned to names in a body, its nested blocks included, its functions and classes not."""
    names: dict[str, list[ast.expr]] = defaultdict(list)
    appended: set[str] = set()
    pending = list(body)
    while pending:
        statement = pending.pop()
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name):
            if isinstance(statement, ast.AugAssign):
                appended.add(target.id)
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, _TEXT):
                names[target.id].append(statement.value)
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
