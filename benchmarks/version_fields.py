"""Fields of dataclasses as their source states them: type, default, choices, help. Static: annotations are read, nothing runs."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

COMPUTED = object()
"""A default that only the running program knows."""

Entry = dict[str, Any]
"""One option: `type` (words joined by |), `default`, and where there are any `choices` and `help`; `computed` for an unknown default."""

_PLAIN = {"bool": "bool", "int": "int", "float": "float", "str": "str", "dict": "dict", "list": "list", "tuple": "list", "Any": "any"}
_PLAIN |= {"None": "null", "List": "list", "Dict": "dict", "PluginConfig": "dict", "object": "any"}
HELP_WIDTH = 200
"""Characters of a help text that are kept: its first sentences up to here."""


class Classes:
    """Every class of some sources, and what their enumerations allow."""

    def __init__(self, sources: Iterable[str]) -> None:
        self.nodes: dict[str, ast.ClassDef] = {}
        self._variables: dict[str, Any] = {}
        self._documented: dict[str, str] = {}
        for source in sources:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef):
                    self.nodes.setdefault(node.name, node)

    def members(self, name: str) -> dict[str, Any]:
        """Member -> value of an enumeration; {} for any other class."""
        node = self.nodes.get(name)
        if node is None or not any("Enum" in ast.unparse(base) for base in node.bases):
            return {}
        return {
            target.id: ast.literal_eval(part.value)
            for part in node.body
            if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant)
            for target in part.targets
            if isinstance(target, ast.Name)
        }

    def fields(self, name: str) -> dict[str, Entry]:
        """The options of a dataclass and of its bases among these sources; those of later bases are replaced by earlier ones."""
        node = self.nodes.get(name)
        if node is None:
            return {}
        found: dict[str, Entry] = {}
        for base in reversed(node.bases):
            found |= self.fields(ast.unparse(base).rpartition(".")[2])
        self._documented = documented(ast.get_docstring(node) or "")
        self._variables = {
            target.id: ast.literal_eval(part.value)
            for part in ast.walk(node)
            if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant)
            for target in part.targets
            if isinstance(target, ast.Name)
        }
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not _hidden(part):
                found[part.target.id] = self._entry(part)
        return found

    def _entry(self, part: ast.AnnAssign) -> Entry:
        words, choices = self.describe(part.annotation)
        default = self.value(part.value)
        entry: Entry = {"type": "|".join(sorted(words, key=lambda word: (word == "null", word)))}
        entry |= {"computed": True, "default": None} if default is COMPUTED else {"default": default}
        if choices:
            entry["choices"] = choices
        assert isinstance(part.target, ast.Name)
        documented = self._documented.get(part.target.id)
        told = _keyword(part.value, "metadata")
        text = self.value(next(iter(told.values), None)) if isinstance(told, ast.Dict) else None
        text = documented or text
        return entry | ({"help": shortened(text)} if isinstance(text, str) and text else {})

    def describe(self, node: ast.expr | None) -> tuple[set[str], list[Any]]:
        """(type words, choices) of an annotation."""
        match node:
            case ast.Constant(value=None):
                return {"null"}, []
            case ast.Constant(value=str(text)):
                return self.describe(ast.parse(text, mode="eval").body)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                values = list(self.members(name).values())
                return ({"str"}, values) if values else ({_PLAIN.get(name, "any")}, [])
            case ast.BinOp(left=left, right=right):
                return self._joined([left, right])
            case ast.Subscript(value=outer, slice=inner):
                return self._subscript(ast.unparse(outer).rpartition(".")[2], inner)
        return {"any"}, []

    def _subscript(self, outer: str, inner: ast.expr) -> tuple[set[str], list[Any]]:
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if outer == "Literal":
            values = [ast.literal_eval(part) for part in parts]
            return {"null" if value is None else type(value).__name__ for value in values}, [one for one in values if one is not None]
        if outer == "Optional":
            words, choices = self._joined(parts)
            return words | {"null"}, choices
        return self._joined(parts) if outer == "Union" else ({_PLAIN.get(outer, "any")}, [])

    def _joined(self, parts: Iterable[ast.expr]) -> tuple[set[str], list[Any]]:
        words: set[str] = set()
        choices: list[Any] = []
        for part in parts:
            more, legal = self.describe(part)
            words |= more
            choices += legal
        return words, choices

    def value(self, node: ast.expr | None) -> Any:
        """A default as written; COMPUTED where it takes the program to know it."""
        match node:
            case ast.Call(func=ast.Name(id="field")):
                factory = _keyword(node, "default_factory")
                made: Any = {"list": [], "dict": {}}.get(factory.id, COMPUTED) if isinstance(factory, ast.Name) else COMPUTED
                default = _keyword(node, "default")
                return made if default is None else self.value(default)
            case ast.Name(id=name) if name in self._variables:  # default_optim of transformers: the last one is that of a new torch
                return self._variables[name]
            case ast.Attribute(value=ast.Name(id=owner), attr=member) if member in self.members(owner):
                return self.members(owner)[member]
            case ast.BinOp(left=left, op=ast.Mult(), right=right):  # 768 * 768
                factors = (self.value(left), self.value(right))
                return factors[0] * factors[1] if all(isinstance(one, int) for one in factors) else COMPUTED
        try:
            return ast.literal_eval(node) if node is not None else COMPUTED
        except ValueError:
            return COMPUTED


def _hidden(part: ast.AnnAssign) -> bool:
    """Whether it is no option: a class variable, or a field that the program sets itself."""
    init = _keyword(part.value, "init")
    return "ClassVar" in ast.unparse(part.annotation) or (isinstance(init, ast.Constant) and init.value is False)


def _keyword(node: ast.expr | None, name: str) -> ast.expr | None:
    words = node.keywords if isinstance(node, ast.Call) else []
    return next((word.value for word in words if word.arg == name), None)


def documented(docstring: str) -> dict[str, str]:
    """Name -> text of the parameters in a docstring of transformers: "name (`type`, *optional*, defaults to 1):" and indented lines."""
    parts = re.split(r"^ *([a-z]\w*) \(`[^\n]*\):$", docstring, flags=re.M)
    texts = (re.split(r"\n\s*\n|\n *- |\n *<Tip", text.strip(), maxsplit=1)[0] for text in parts[2::2])
    return {name: text for name, text in zip(parts[1::2], texts, strict=True) if text}


def shortened(text: str) -> str:
    """A help text's first sentences, cut at a word where even the first is too long."""
    plain = " ".join(text.split())
    if len(plain) <= HELP_WIDTH:
        return plain
    end = plain.rfind(". ", 0, HELP_WIDTH)
    return plain[: end + 1] if end > 0 else textwrap.shorten(plain, HELP_WIDTH, placeholder=" ...")


def messages(sources: Mapping[str, str]) -> Iterator[str]:
    """What these sources raise, as templates: unknown parts are {}."""
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and call.args:
                text = template(call.args[0])
                if text.strip("{} "):
                    yield text


def template(node: ast.expr) -> str:
    """The text that an expression builds, with {} for what is only known at run time."""
    match node:
        case ast.Constant(value=str(text)):
            return " ".join(text.split(" ")).replace("\n", " ")
        case ast.JoinedStr(values=parts):
            return "".join(template(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case ast.Call(func=ast.Attribute(value=text, attr="format" | "strip")):
            return template(text)
    return "{}"
