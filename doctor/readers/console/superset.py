"""Convert a rule's regular expression to a Hyperscan expression that matches at least the same lines.

The result drops what Hyperscan lacks: anchors, word boundaries, look-arounds and upper bounds of repeats. A non-ASCII character becomes
any non-ASCII bytes. Optional parts at both ends are dropped, so a match has a single end.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

_PARSER = "re._parser"
"""The standard library's parser of regular expressions."""

_WIDE = b"\\x80-\\xff"
"""Bytes of non-ASCII characters, for a class."""

_ANY = b"[^\\n]"
"""Any byte of a line."""

_CATEGORIES = {"WORD": b"\\w", "SPACE": b" \\t\\r\\x0b\\x0c\\x1c-\\x1f", "DIGIT": b"\\d"}
"""Python's category -> ASCII members, for a class."""

_BYTES = 4
"""Maximum bytes of a UTF-8 character."""


class NoSuperset(Exception):
    """The expression contains something that cannot be converted."""


class Superset(NamedTuple):
    """A Hyperscan expression for a line. `first`: a match counts only at the start of the line's own text."""

    body: bytes
    first: bool


def superset(expression: str) -> Superset:
    """Convert an expression. Raises NoSuperset, also if every part is optional."""
    try:
        tree: Any = importlib.import_module(_PARSER).parse(expression)  # noqa: TID251 (standard library)
        flags = tree.state.flags
    except (ImportError, AttributeError, re.error) as error:
        raise NoSuperset(str(error)) from error
    nodes = list(tree)
    first = bool(nodes) and _name(nodes[0]) == "AT" and str(nodes[0][1]).startswith("AT_BEGINNING")
    body = _sequence(_trimmed(_trimmed(nodes, last=True), last=False))
    if not body:
        raise NoSuperset("nothing must match")
    return Superset(b"(?i:" + body + b")" if flags & re.IGNORECASE else body, first)


def _trimmed(nodes: list[Any], *, last: bool) -> list[Any]:
    """Drop parts at the end (or start) that may match the empty string and reduce repeats there to their minimum."""
    place = -1 if last else 0
    while nodes:
        name, value = _name(nodes[place]), nodes[place][1]
        if name in ("AT", "ASSERT", "ASSERT_NOT") or (name in _REPEATS and value[0] == 0):
            nodes.pop(place)
            continue
        if name in _REPEATS and len(value[2]) == 1 and _characters(value[2][0]) is not None:
            nodes[place] = (nodes[place][0], (value[0], value[0], value[2]))
        elif name == "SUBPATTERN":
            inner = _trimmed(list(value[3]), last=last)
            nodes[place] = (nodes[place][0], (*value[:3], inner))
            if not inner:
                nodes.pop(place)
                continue
        elif name == "BRANCH":
            branches = [_trimmed(list(branch), last=last) for branch in value[1]]
            if not all(branches):
                nodes.pop(place)
                continue
            nodes[place] = (nodes[place][0], (value[0], branches))
        break
    return nodes


_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
"""Opcodes of repeats."""


def _name(node: Any) -> str:
    return str(node[0])


def _sequence(nodes: Any) -> bytes:
    return b"".join(map(_node, nodes))


def _node(node: Any) -> bytes:
    characters = _characters(node)
    if characters is not None:
        return characters + (b"{1,%d}" % _BYTES if _wide(characters) else b"")
    name = _name(node)
    if name in _FIXED:
        return _FIXED[name]
    if name not in _MAKE:
        raise NoSuperset(name)
    return _MAKE[name](node[1])


def _characters(node: Any) -> bytes | None:
    """The expression for a node that matches a single character; None for other nodes and non-ASCII literals."""
    name, value = _name(node), node[1]
    if name == "LITERAL":
        return b"\\x%02x" % value if value < 128 else None
    if name == "NOT_LITERAL":
        return b"[^\\n%s]" % (b"\\x%02x" % value if value < 128 else b"")
    if name == "ANY":
        return _ANY
    return _class(value) if name == "IN" else None


def _wide(characters: bytes) -> bool:
    return characters.startswith(b"[^") or _WIDE in characters


def _class(items: Any) -> bytes:
    out, negated, wide = b"", False, False
    for item in items:
        name, value = _name(item), item[1]
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            out += b"\\x%02x" % value if value < 128 else b""
            wide |= value >= 128
        elif name == "RANGE":
            low, high = value
            out += b"\\x%02x-\\x%02x" % (low, min(high, 127)) if low < 128 else b""
            wide |= high >= 128
        else:
            kind = str(value).removeprefix("CATEGORY_")
            if kind.startswith("NOT_"):  # \\S, \\W, \\D
                return b"[^\\n" + _CATEGORIES[kind[4:]] + b"]" if len(items) == 1 else _ANY
            out += _CATEGORIES[kind]
            wide = True
    if negated:
        return b"[^\\n" + out + b"]"
    return b"[" + out + (_WIDE if wide else b"") + b"]"


def _literal(value: int) -> bytes:
    return b"(?:" + b"".join(b"\\x%02x" % byte for byte in chr(value).encode("utf-8", "surrogatepass")) + b")"


def _repeat(value: Any) -> bytes:
    low, high, inner = value
    characters = _characters(inner[0]) if len(inner) == 1 else None
    if characters is None:
        body = b"(?:" + _sequence(inner) + b")"
        return body + (b"{%d}" % low if low == high else b"{%d,1}" % low if high == 1 else b"{%d,}" % low)
    if high == 1 or low == high:
        return characters + b"{%d,%d}" % (low, high * (_BYTES if _wide(characters) else 1))
    return characters + b"{%d,}" % low


def _group(value: Any) -> bytes:
    _, added, removed, inner = value
    if removed:
        raise NoSuperset("flags taken away")
    return (b"(?i:" if added & re.IGNORECASE else b"(?:") + _sequence(inner) + b")"


def _branch(value: Any) -> bytes:
    return b"(?:" + b"|".join(map(_sequence, value[1])) + b")"


_MAKE: dict[str, Callable[[Any], bytes]] = {
    "LITERAL": _literal, "BRANCH": _branch, "SUBPATTERN": _group, "ATOMIC_GROUP": _sequence, **dict.fromkeys(_REPEATS, _repeat),
}  # fmt: skip
"""Opcode -> conversion of its arguments."""

_FIXED = {"AT": b"", "ASSERT": b"", "ASSERT_NOT": b"", "GROUPREF": _ANY + b"*"}
"""Opcode -> expression, whatever its arguments."""
