"""YAML as LLaMA-Factory reads it (OmegaConf's rules), and single values as both OmegaConf and PyYAML read them back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

MAX_NODES = 100_000
"""A file that has more nodes once its aliases are written out is not read."""

BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MERGE = "tag:yaml.org,2002:merge"


class NotReadable(ValueError):
    """The text is no YAML mapping; the message says why and, where known, on which line."""


class Loader(BASE):  # type: ignore[misc]
    """OmegaConf's reading of YAML (LLaMA-Factory 0.9.4 on): `5e-5` and `1e3` are numbers, dates are text."""


Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for key, resolvers in BASE.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
        |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
        |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.X,
    ),
    list("-+0123456789."),
)


def load(text: str) -> dict[str, Any]:
    """The mapping in `text` as LLaMA-Factory would load it, of equal keys the last one. Raises NotReadable; never runs anything."""
    try:
        node = compose(text)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise NotReadable("line 1: expected keys and values (`key: value`)")
        if _expanded(node, {}) > MAX_NODES:
            raise NotReadable(f"its aliases stand for more than {MAX_NODES} values")
        loader = Loader("")
        try:
            values = loader.construct_document(node)
        finally:
            loader.dispose()
        return {str(key): value for key, value in values.items()}
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise NotReadable(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise NotReadable(str(error).splitlines()[0]) from error
    except (RecursionError, ValueError, TypeError) as error:
        raise error if isinstance(error, NotReadable) else NotReadable(f"{type(error).__name__}: {error}") from error


def duplicate_keys(text: str) -> dict[str, int]:
    """Top-level keys given more than once -> the 1-based line of the last; LLaMA-Factory 0.9.4 on refuses such a file."""
    try:
        node = compose(text)
    except yaml.YAMLError:
        return {}
    lines: dict[str, list[int]] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        lines.setdefault(key.value, []).append(key.start_mark.line + 1)
    return {key: places[-1] for key, places in lines.items() if len(places) > 1 and key != "<<"}


def dump(value: Any) -> str:
    """One value on one line, such that PyYAML and OmegaConf read the same: floats always have a dot (5.0e-05)."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(value)]
        number = repr(value)
        return number.replace("e", ".0e") if "e" in number and "." not in number else number
    if value is None or isinstance(value, bool | int):
        return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{dump(str(key))}: {dump(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(dump, value)) + "]"
    return _dump_text(str(value))


def _dump_text(value: str) -> str:
    plain = re.fullmatch(r"[A-Za-z0-9_./~][\w./+@~:-]*", value) is not None and not value.endswith(":")
    if plain and _scalar(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _scalar(text: str) -> Any:
    """How a plain scalar is read, by PyYAML's rules and by OmegaConf's (a number under either is no text)."""
    for loader in (Loader, BASE):
        read = yaml.load(text, loader)  # noqa: S506 (both are safe loaders)
        if not isinstance(read, str):
            return read
    return text


def compose(text: str) -> yaml.Node | None:
    """The node tree of the first document, without its byte order mark. Raises yaml.YAMLError."""
    return yaml.compose(text.removeprefix("\ufeff"), Loader)


def _expanded(node: yaml.Node, seen: dict[int, int]) -> int:
    """How many nodes a tree has once its aliases are written out."""
    if seen.get(id(node)) == 0:
        raise NotReadable(f"line {node.start_mark.line + 1}: an alias that holds itself")
    if id(node) not in seen:
        seen[id(node)] = 0
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        seen[id(node)] = 1 + (sum(_expanded(part, seen) for part in parts) if isinstance(node, yaml.CollectionNode) else 0)
    return seen[id(node)]


def equal(a: Any, b: Any) -> bool:
    """Equal values of equal types, not-a-number equal to itself."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return type(a) is type(b) and bool(a == b)
