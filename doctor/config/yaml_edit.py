"""A patch on YAML text: touches only the bytes of its own keys; and the rules by which LLaMA-Factory reads such a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

MAX_NODES = 100_000
"""A config that aliases blow up beyond this many nodes is not one."""

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"


class NotReadable(ValueError):
    """The text is no YAML mapping; the message says why and, where known, on which line."""


class Edit(msgspec.Struct, frozen=True):
    """One top-level key to set, or to remove. A new key goes after the last of `near` that is there, with `comment` behind it."""

    key: str
    value: Any = None
    remove: bool = False
    near: tuple[str, ...] = ()
    comment: str = ""


class _Loader(_BASE):  # type: ignore[misc]
    """OmegaConf's reading of YAML (LLaMA-Factory 0.9.4 on): `5e-5` and `1e3` are numbers, dates are text."""


_Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for key, resolvers in _BASE.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
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
        node = _compose(text)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise NotReadable("line 1: expected keys and values (`key: value`)")
        if _expanded(node, {}) > MAX_NODES:
            raise NotReadable(f"its aliases stand for more than {MAX_NODES} values")
        loader = _Loader("")
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
        node = _compose(text)
    except yaml.YAMLError:
        return {}
    lines: dict[str, list[int]] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        lines.setdefault(key.value, []).append(key.start_mark.line + 1)
    return {key: places[-1] for key, places in lines.items() if len(places) > 1 and key != "<<"}


def edit(text: str, edits: Sequence[Edit]) -> str | None:
    """`text` with these edits, every other byte as it was; None where that cannot be done safely (anchors in use, odd styles).

    What comes out has been read again: the edited keys hold their new values, all others what they held.
    """
    try:
        wanted = load(text)
        out = text
        for one in edits:
            out = _remove(out, one.key) if one.remove else _set(out, one)
            wanted = {key: value for key, value in wanted.items() if key != one.key} | ({} if one.remove else {one.key: one.value})
        return out if _equal(load(out), wanted) else None
    except (NotReadable, _CannotEdit, yaml.YAMLError, RecursionError):
        return None


def edit_json(text: str, edits: Sequence[Edit]) -> str | None:
    """The same for a JSON config: rewritten whole with its own indentation; None if it is no JSON object."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    for one in edits:
        if one.remove:
            values.pop(one.key, None)
        else:
            values[one.key] = one.value
    indent = re.search(r"\n([ \t]+)\"", text)
    return json.dumps(values, indent=indent[1] if indent else None, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")


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
    for loader in (_Loader, _BASE):
        read = yaml.load(text, loader)  # noqa: S506 (both are safe loaders)
        if not isinstance(read, str):
            return read
    return text


class _CannotEdit(Exception):
    """This style is beyond byte-span edits."""


def _compose(text: str) -> yaml.Node | None:
    return yaml.compose(text.removeprefix("\ufeff"), _Loader)


def _expanded(node: yaml.Node, seen: dict[int, int]) -> int:
    """How many nodes a tree has once its aliases are written out."""
    if seen.get(id(node)) == 0:
        raise NotReadable(f"line {node.start_mark.line + 1}: an alias that holds itself")
    if id(node) not in seen:
        seen[id(node)] = 0
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        seen[id(node)] = 1 + (sum(_expanded(part, seen) for part in parts) if isinstance(node, yaml.CollectionNode) else 0)
    return seen[id(node)]


class _Place(msgspec.Struct):
    """Where one top-level pair stands: offsets into the text of key start, key end, value start, value end."""

    key: int
    colon: int
    start: int
    end: int
    node: yaml.Node


def _places(text: str) -> tuple[dict[str, list[_Place]], bool]:
    """Every top-level pair by key, and whether the mapping is in flow style ({...})."""
    offset = 1 if text.startswith("\ufeff") else 0
    root = _compose(text)
    if root is None:
        return {}, False
    if not isinstance(root, yaml.MappingNode):
        raise _CannotEdit
    places: dict[str, list[_Place]] = {}
    for key, value in root.value:
        if key.tag == _MERGE or not isinstance(key, yaml.ScalarNode):
            continue
        key_end = key.end_mark.index + offset
        colon = text.find(":", key_end)
        if colon < 0:  # an explicit key (`? key`) without a value
            raise _CannotEdit
        places.setdefault(key.value, []).append(_place(text, key.start_mark.index + offset, colon, value, offset))
    return places, bool(root.flow_style)


def _place(text: str, key: int, colon: int, value: yaml.Node, offset: int) -> _Place:
    alias = re.compile(r"[ \t]*\*[^\s,\]}]+").match(text, colon + 1)
    if alias:
        start = alias.start() + len(alias[0]) - len(alias[0].lstrip())
        return _Place(key, colon, start, alias.end(), value)
    start, end = value.start_mark.index + offset, _end(text, value, offset)
    if end <= colon:
        raise _CannotEdit
    return _Place(key, colon, *((colon + 1, colon + 1) if start >= end else (start, end)), value)


def _end(text: str, node: yaml.Node, offset: int) -> int:
    """Where the value's own text ends: libyaml ends block values at the next token, behind comments and blank lines."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return max(_end(text, part, offset) for part in (last if isinstance(last, tuple) else (last,)))
    end = int(node.end_mark.index) + offset
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        lines = text[node.start_mark.index + offset : end].splitlines(keepends=True)
        while len(lines) > 1 and (not lines[-1].strip() or re.match(r"\s*#", lines[-1])):
            end -= len(lines.pop())
        end -= len(lines[-1]) - len(lines[-1].rstrip("\r\n"))
    return end


def _set(text: str, one: Edit) -> str:
    places, flow = _places(text)
    if one.key not in places:
        if flow:
            raise _CannotEdit
        return _add(text, places, one)
    for _ in places[one.key][:-1]:
        text = _remove_first(text, one.key)
    place = _places(text)[0][one.key][-1]
    if place.start == place.end:
        return f"{text[: place.colon + 1]} {dump(one.value)}{text[place.end :]}"
    if isinstance(one.value, Mapping) and one.value and not flow and "\n" not in text[place.colon : place.end]:
        stop = _line_end(text, place.end)
        block = _block(one.value, _column(text, place.key) + 2, _newline(text))
        return text[: place.colon + 1] + text[place.end : stop].rstrip() + _newline(text) + block + text[stop:]
    before = text[place.colon + 1 : place.start]
    start = text[: place.colon + 1] + " " if "\n" in before and not before.strip() else text[: place.start]
    return start + dump(one.value) + text[place.end :]


def _remove(text: str, key: str) -> str:
    for _ in _places(text)[0].get(key, ()):
        text = _remove_first(text, key)
    return text


def _remove_first(text: str, key: str) -> str:
    """Without the key's own lines, the comment behind its value included."""
    places, flow = _places(text)
    if flow:
        raise _CannotEdit
    place = places[key][0]
    start = text.rfind("\n", 0, place.key) + 1
    if text[start : place.key].strip(" \ufeff"):
        raise _CannotEdit
    stop = _line_end(text, place.end)
    if text[place.end : stop].strip() and not text[place.end : stop].lstrip().startswith("#"):
        raise _CannotEdit
    after = text[stop:]
    after = after[2:] if after.startswith("\r\n") else after[1:]
    return text[:start] + ("\ufeff" if text[start : place.key].startswith("\ufeff") else "") + after


def _add(text: str, places: Mapping[str, list[_Place]], one: Edit) -> str:
    """A new key, behind the last key of `near` that is there, else behind the last key of all."""
    newline = _newline(text)
    known = [places[key][-1] for key in one.near if key in places] or [found[-1] for found in places.values()]
    place = max(known, key=lambda place: place.key, default=None)
    column = _column(text, place.key) if place else 0
    comment = f"  # {one.comment}" if one.comment else ""
    if isinstance(one.value, Mapping) and one.value:
        line = f"{' ' * column}{dump(one.key)}:{comment}{newline}{_block(one.value, column + 2, newline)}"
    else:
        line = f"{' ' * column}{dump(one.key)}: {dump(one.value)}{comment}"
    if place is None:
        body = text if not text or text.endswith("\n") else text + newline
        return body + line + newline
    stop = _line_end(text, place.end)
    return text[:stop] + newline + line + text[stop:]


def _block(value: Mapping[str, Any], column: int, newline: str) -> str:
    """Nested settings, a line each, without the last line's end."""
    lines = []
    for key, part in value.items():
        nested = isinstance(part, Mapping) and part
        lines.append(f"{' ' * column}{dump(str(key))}:{newline + _block(part, column + 2, newline) if nested else ' ' + dump(part)}")
    return newline.join(lines)


def _line_end(text: str, position: int) -> int:
    """The offset of the line's end, its CR or LF not included."""
    found = re.compile(r"\r?\n|\Z").search(text, position)
    return found.start() if found else len(text)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _column(text: str, position: int) -> int:
    return position - (text.rfind("\n", 0, position) + 1) - (1 if text.startswith("\ufeff") and "\n" not in text[:position] else 0)


def _equal(a: Any, b: Any) -> bool:
    """Equal values of equal types, not-a-number equal to itself."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return type(a) is type(b) and bool(a == b)
