"""The message that a Python expression builds, as literal pieces: `f"no {kind} in {path}"` is `["no ", None, " in ", None]`."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product

Pieces = tuple[str | None, ...]
"""Literal text in order; None stands for text that is only known when the program runs."""

_ANY: list[Pieces] = [(None,)]
_MAX_ALTERNATIVES = 8
"""Messages that one expression may build (`a if x else b`); beyond that the differing part is unknown text."""
_MAX_DEPTH = 12
_MIN_FILLED = 15
"""Literal characters from which on a variable's text is filled in: shorter ones are names and values."""
_PERCENT = re.compile(r"%(?:\(\w+\))?[#0\- +]*(?:\d+|\*)?(?:\.(?:\d+|\*))?[hlL]?([diouxXeEfFgGcrsa%])")
_UNCHANGED_BY = ("strip", "lstrip", "rstrip", "dedent", "cleandoc", "str", "format_map", "encode", "_", "fill")
"""Functions whose result has the words of their text; white space is not compared."""


class Scope:
    """What a name may stand for where a message is built: the texts that the function, or else the module, assigns to it."""

    def __init__(self, names: Mapping[str, Sequence[ast.expr]], appended: frozenset[str] = frozenset(), outer: Scope | None = None) -> None:
        self._names, self._appended, self._outer = names, appended, outer

    def values(self, name: str) -> tuple[Sequence[ast.expr], bool]:
        """The expressions assigned to the name, and whether text is appended to it."""
        if name in self._names:
            return self._names[name], name in self._appended
        return self._outer.values(name) if self._outer is not None else ((), False)

    def without(self, name: str) -> Scope:
        """The same, but for one name whose text is unknown: inside its own assignment (`text = text + "."`)."""
        return Scope({name: ()}, outer=self)


def templates(expression: ast.expr, scope: Scope, depth: int = 0) -> list[Pieces]:
    """All messages that the expression may build; unknown parts are None, equal neighbours are joined."""
    build = _BUILDERS.get(type(expression))
    if build is None or depth > _MAX_DEPTH:
        return _ANY
    found = list(dict.fromkeys(map(joined, build(expression, scope, depth + 1))))
    return found if len(found) <= _MAX_ALTERNATIVES else _ANY


def joined(pieces: Pieces) -> Pieces:
    """The same text with neighbouring literals as one and neighbouring unknown parts as one."""
    out: list[str | None] = []
    for piece in pieces:
        if piece == "":
            continue
        if out and piece is None and out[-1] is None:
            continue
        last = out[-1] if out else None
        if piece is not None and last is not None:
            out[-1] = last + piece
        else:
            out.append(piece)
    return tuple(out)


def _concatenated(parts: Sequence[list[Pieces]]) -> list[Pieces]:
    chosen = islice(product(*parts), _MAX_ALTERNATIVES + 1)
    return [tuple(piece for part in combination for piece in part) for combination in chosen]


def _constant(node: ast.Constant, _scope: Scope, _depth: int) -> list[Pieces]:
    value = node.value
    return [(value,)] if isinstance(value, str) else [(str(value),)] if isinstance(value, int | float) else _ANY


def _fstring(node: ast.JoinedStr, scope: Scope, depth: int) -> list[Pieces]:
    return _concatenated([_formatted(part, scope, depth) for part in node.values])


def _formatted(part: ast.expr, scope: Scope, depth: int) -> list[Pieces]:
    """A value inside an f-string: text of a constant is filled in, text of a variable may be."""
    if not isinstance(part, ast.FormattedValue):
        return templates(part, scope, depth)
    inner = part.value
    if part.format_spec is not None or part.conversion != -1 or not isinstance(inner, ast.Name):
        return _ANY
    filled = templates(inner, scope, depth)
    if inner.id.isupper():
        return filled
    return [pieces for pieces in filled if sum(len(piece or "") for piece in pieces) >= _MIN_FILLED] + _ANY


def _operation(node: ast.BinOp, scope: Scope, depth: int) -> list[Pieces]:
    left = templates(node.left, scope, depth)
    if isinstance(node.op, ast.Add):
        return _concatenated([left, templates(node.right, scope, depth)])
    if isinstance(node.op, ast.Mod):
        return [_filled(pieces, _split_percent) for pieces in left]
    return _ANY


def _call(node: ast.Call, scope: Scope, depth: int) -> list[Pieces]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    if isinstance(function, ast.Attribute) and name == "format":
        return [_filled(pieces, _split_format) for pieces in templates(function.value, scope, depth)]
    if isinstance(function, ast.Attribute) and name == "join" and len(node.args) == 1:
        return _joined_list(function.value, node.args[0], scope, depth)
    if name in _UNCHANGED_BY:
        text = node.args[0] if node.args and (name in ("dedent", "cleandoc", "str", "_", "fill")) else None
        text = text or (function.value if isinstance(function, ast.Attribute) else None)
        return templates(text, scope, depth) if text is not None else _ANY
    return _ANY


def _joined_list(separator: ast.expr, items: ast.expr, scope: Scope, depth: int) -> list[Pieces]:
    between = templates(separator, scope, depth)
    if not isinstance(items, ast.List | ast.Tuple) or len(between) != 1:
        return _ANY
    parts: list[list[Pieces]] = []
    for item in items.elts:
        parts += [templates(item, scope, depth), between]
    return _concatenated(parts[:-1])


def _either(node: ast.IfExp, scope: Scope, depth: int) -> list[Pieces]:
    return templates(node.body, scope, depth) + templates(node.orelse, scope, depth)


def _name(node: ast.Name, scope: Scope, depth: int) -> list[Pieces]:
    values, appended = scope.values(node.id)
    end: Pieces = (None,) if appended else ()
    return [pieces + end for value in values for pieces in templates(value, scope.without(node.id), depth)] or _ANY


def _filled(pieces: Pieces, split: Callable[[str], Iterator[str | None]]) -> Pieces:
    return tuple(part for piece in pieces for part in ([None] if piece is None else split(piece)))


def _split_percent(text: str) -> Iterator[str | None]:
    """`%s` and the like are unknown text, `%%` is a per cent sign."""
    place = 0
    for found in _PERCENT.finditer(text):
        yield text[place : found.start()]
        yield "%" if found[1] == "%" else None
        place = found.end()
    yield text[place:]


def _split_format(text: str) -> Iterator[str | None]:
    """`{name}` is unknown text; a text that str.format would refuse is unknown as a whole."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError:
        yield None
        return
    for literal, field, *_ in fields:
        yield literal
        if field is not None:
            yield None


_BUILDERS: dict[type[ast.expr], Callable[..., list[Pieces]]] = {
    ast.Constant: _constant,
    ast.JoinedStr: _fstring,
    ast.BinOp: _operation,
    ast.Call: _call,
    ast.IfExp: _either,
    ast.Name: _name,
}
