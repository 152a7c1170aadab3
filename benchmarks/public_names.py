"""What a Python source offers to others: names, attributes of its classes, parameters, model types, and what it asks of other packages."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence

import msgspec

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_TOP_LEVEL = re.compile(rb"^(?!(?:else|elif|except|finally)\b)(?=[A-Za-z_@])", re.MULTILINE)
_DEFINED = re.compile(rb"(?:async )?(?:def|class)\s+(\w+)")
_SET_ON_SELF = re.compile(rb"\bself\.(\w+)(?:\s*:[^=\n]{1,80})?\s*=(?!=)")
_MODEL_TYPES = ("CONFIG_MAPPING_NAMES",)
_LAZY = ("_import_structure", "_SUBMOD_ATTRS", "_extra_objects")
"""Variables that say what a lazy package offers (transformers, trl, huggingface_hub)."""


class Signature(msgspec.Struct, array_like=True, frozen=True):
    """The parameters that can be given by name; `any` where the function takes any keyword."""

    names: tuple[str, ...]
    any: bool


class ClassNames(msgspec.Struct, array_like=True, frozen=True):
    """A class: its bases by their last name, attributes (also those set on self), its methods' signatures, and its kind."""

    bases: tuple[str, ...]
    attributes: tuple[str, ...]
    methods: dict[str, Signature]
    dataclass: bool


class ModuleNames(msgspec.Struct, array_like=True, frozen=True):
    """A module, or a part of one. `imported` are (level, module, name, alias) of its own package, `asked` (module, name) of others; a star
    is the name `*`, an import of a module has no name. `collects` where a lazy package offers what its modules export."""

    names: tuple[str, ...] = ()
    exported: tuple[str, ...] | None = None
    imported: tuple[tuple[int, str, str, str], ...] = ()
    asked: tuple[tuple[str, str], ...] = ()
    lazy: tuple[str, ...] = ()
    collects: bool = False
    classes: dict[str, ClassNames] = {}
    functions: dict[str, Signature] = {}
    model_types: tuple[str, ...] = ()


def parts(source: bytes, *, models: bool) -> list[bytes]:
    """The top-level statements of a source with something to read; releases share most of them.

    Of the many files of models only the names of functions and classes are read, and what their configurations have.
    """
    out: list[bytes] = []
    decorators = b""
    for chunk in _TOP_LEVEL.split(source):
        if chunk.startswith(b"@"):
            decorators += chunk
            continue
        header = _DEFINED.match(chunk)
        if models and header is not None and not header[1].endswith(b"Config"):
            out.append(b"class " + header[1] + b": ..." if b"class" in header[0] else header[1] + b" = 0")
        else:
            out.append(decorators + chunk)
        decorators = b""
    return out


def names_of(part: bytes, top: str, others: frozenset[str]) -> ModuleNames | None:
    """The names of a part of a module of the package `top`; None if it is no Python source. `others` are the packages of interest."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(part)
    except (SyntaxError, ValueError, RecursionError):
        return None
    return _Reading(top, others, part).read(tree)


def joined(found: Iterable[ModuleNames]) -> ModuleNames:
    """The parts of a module as one."""
    every = list(found)
    exported = [one.exported for one in every if one.exported is not None]
    return ModuleNames(
        tuple({name: None for one in every for name in one.names}),
        tuple(name for names in exported for name in names) if exported else None,
        tuple(place for one in every for place in one.imported),
        tuple({place: None for one in every for place in one.asked}),
        tuple(name for one in every for name in one.lazy),
        any(one.collects for one in every),
        {name: found for one in every for name, found in one.classes.items()},
        {name: found for one in every for name, found in one.functions.items()},
        tuple(name for one in every for name in one.model_types),
    )


class _Reading:
    """One part while it is read."""

    def __init__(self, top: str, others: frozenset[str], text: bytes) -> None:
        self.top, self.others, self.text = top, others, text
        self.names: dict[str, None] = {}
        self.exported: list[str] | None = None
        self.imported: dict[tuple[int, str, str, str], None] = {}
        self.asked: dict[tuple[str, str], None] = {}
        self.lazy: dict[str, None] = {}
        self.classes: dict[str, ClassNames] = {}
        self.functions: dict[str, Signature] = {}
        self.model_types: dict[str, None] = {}

    def read(self, tree: ast.Module) -> ModuleNames:
        for statement in _statements(tree.body):
            self._top_level(statement)
        for node in _unguarded(tree) if b"import " in self.text else ():
            if isinstance(node, ast.ImportFrom) and not node.level and node.module and node.module.partition(".")[0] in self.others:
                self.asked.update({(node.module, alias.name): None for alias in node.names if alias.name != "*"})
            elif isinstance(node, ast.Import):
                named = (alias.name for alias in node.names if "." in alias.name and alias.name.partition(".")[0] in self.others)
                self.asked.update({(name, ""): None for name in named})
        return ModuleNames(
            tuple(self.names),
            None if self.exported is None else tuple(self.exported),
            tuple(self.imported),
            tuple(self.asked),
            tuple(self.lazy),
            b"define_import_structure(" in self.text,
            self.classes,
            self.functions,
            tuple(self.model_types),
        )

    def _top_level(self, statement: ast.stmt) -> None:
        if isinstance(statement, _FUNCTION):
            self.names[statement.name] = None
            self.functions[statement.name] = _signature(statement, method=False)
        elif isinstance(statement, ast.ClassDef):
            self.names[statement.name] = None
            self.classes[statement.name] = _class(statement, self.text)
        elif isinstance(statement, ast.ImportFrom):
            self._import_from(statement)
        elif isinstance(statement, ast.Import):
            self.names.update({alias.asname: None for alias in statement.names if alias.asname})
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            self._assigned(statement)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            self._call(statement.value)

    def _import_from(self, statement: ast.ImportFrom) -> None:
        module = statement.module or ""
        if statement.level or module.partition(".")[0] == self.top:
            for alias in statement.names:
                self.imported[statement.level, module, alias.name, alias.asname or alias.name] = None

    def _assigned(self, statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            for node in [target, *getattr(target, "elts", [])]:
                if isinstance(node, ast.Name):
                    self.names[node.id] = None
            name = target.id if isinstance(target, ast.Name) else _subscripted(target)
            if name == "__all__" and statement.value is not None:
                self.exported = [*(self.exported or []), *_texts(statement.value)]
            elif name in _LAZY and statement.value is not None:
                self._structure(statement.value, target)
            elif name in _MODEL_TYPES and statement.value is not None:
                self.model_types.update(dict.fromkeys(_keys(statement.value)))

    def _structure(self, value: ast.expr, target: ast.expr) -> None:
        """`_import_structure = {"module": ["Name", ...]}` or `_import_structure["module"] = [...]`."""
        if isinstance(value, ast.Dict):
            self.lazy.update(dict.fromkeys(_keys(value)))
        if isinstance(target, ast.Subscript):
            self.lazy.update(dict.fromkeys(_texts(target.slice)))
        values = value.values if isinstance(value, ast.Dict) else [value]
        self.lazy.update(dict.fromkeys(text for one in values for text in _texts(one)))

    def _call(self, call: ast.Call) -> None:
        """`_import_structure["module"].append("Name")`, `__all__.extend([...])`."""
        of = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = of.id if isinstance(of, ast.Name) else _subscripted(of)
        found = [text for argument in call.args for text in _texts(argument)]
        if name in _LAZY:
            self.lazy.update(dict.fromkeys(found))
        elif name == "__all__":
            self.exported = [*(self.exported or []), *found]


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a body and of the blocks in it that run when it does."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for field in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", ()):
                yield from _statements(handler.body)


def _unguarded(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree but those under a condition or a `try`: an import there may be meant for other releases."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.If | ast.Try):
            yield child
            yield from _unguarded(child)


def _subscripted(node: ast.expr | None) -> str:
    return node.value.id if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) else ""


def _texts(node: ast.expr) -> list[str]:
    """Texts of a literal list, also of one that is put together with +."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [text for one in node.elts for text in _texts(one)]
    return [*_texts(node.left), *_texts(node.right)] if isinstance(node, ast.BinOp) else []


def _keys(node: ast.expr) -> list[str]:
    """Keys of a literal dict, or of `OrderedDict([("key", value), ...])`."""
    if isinstance(node, ast.Dict):
        return [key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    if isinstance(node, ast.Call):
        return [key for argument in node.args for key in _keys(argument)]
    pairs = node.elts if isinstance(node, ast.List | ast.Tuple) else []
    firsts = (pair.elts[0] for pair in pairs if isinstance(pair, ast.Tuple) and pair.elts)
    return [first.value for first in firsts if isinstance(first, ast.Constant) and isinstance(first.value, str)]


def _class(definition: ast.ClassDef, text: bytes) -> ClassNames:
    attributes: dict[str, None] = {found[1].decode(): None for found in _SET_ON_SELF.finditer(text)}
    methods: dict[str, Signature] = {}
    fields: list[str] = []
    for statement in _statements(definition.body):
        if isinstance(statement, _FUNCTION):
            attributes[statement.name] = None
            methods[statement.name] = _signature(statement, method=not _is_static(statement))
        elif isinstance(statement, ast.Assign):
            attributes.update({target.id: None for target in statement.targets if isinstance(target, ast.Name)})
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            attributes[statement.target.id] = None
            fields.append(statement.target.id)
    dataclass = any("dataclass" in ast.dump(decorator) for decorator in definition.decorator_list)
    if dataclass and "__init__" not in methods:
        methods["__init__"] = Signature(tuple(fields), any=False)
    bases = tuple(name for base in definition.bases if (name := _last(base)))
    return ClassNames(bases, tuple(attributes), methods, dataclass)


def _is_static(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in function.decorator_list)


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> Signature:
    given = function.args
    named = [argument.arg for argument in (*given.args, *given.kwonlyargs)]
    named = named[1:] if method and named else named
    open_ended = given.kwarg is not None
    for decorator in function.decorator_list:
        name = _last(decorator)
        if "deprecate" in name and isinstance(decorator, ast.Call):
            named += [text for value in (*decorator.args, *(word.value for word in decorator.keywords)) for text in _texts(value)]
        elif name not in _PLAIN_DECORATORS:
            open_ended = True
    return Signature(tuple(named), open_ended)


_PLAIN_DECORATORS = (
    "staticmethod", "classmethod", "property", "abstractmethod", "no_grad", "wraps", "overload", "add_start_docstrings", "auto_docstring",
    "add_start_docstrings_to_model_forward", "replace_return_docstrings", "add_code_sample_docstrings", "can_return_tuple",
)  # fmt: skip
"""Decorators that take no arguments of their own; `deprecate_kwarg` adds those that it names, any other may take any."""


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call | ast.Subscript):
        return _last(node.func if isinstance(node, ast.Call) else node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
