"""A patch on YAML text: only the bytes of its own keys change, everything else stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from doctor.config.yaml_text import MERGE, NotReadable, compose, dump, duplicate_keys, equal, load

__all__ = ["Edit", "NotReadable", "dump", "duplicate_keys", "edit", "edit_json", "load"]


class Edit(msgspec.Struct, frozen=True):
    """One top-level key to set, to remove, or to rename to `new_key` (it keeps its place, and takes `value`).

    A key that is not there is added behind the last of `near` that is, with `comment` behind its value.
    """

    key: str
    value: Any = None
    remove: bool = False
    near: tuple[str, ...] = ()
    comment: str = ""
    new_key: str | None = None


def edit(text: str, edits: Sequence[Edit]) -> str | None:
    """`text` with these edits, every other byte as it was; None where that cannot be done safely (anchors in use, odd styles).

    The result is read back: the edited keys must hold their new values, all others what they held.
    """
    try:
        wanted = load(text)
        out = text
        for change in edits:
            out = _remove(out, change.key) if change.remove else _rename(out, change) if change.new_key else _set(out, change)
            wanted = _after(wanted, change)
        return out if equal(load(out), wanted) else None
    except (NotReadable, _CannotEdit, yaml.YAMLError, RecursionError):
        return None


def _after(values: Mapping[str, Any], change: Edit) -> dict[str, Any]:
    """What the mapping must hold after an edit; the order of keys is kept by a rename."""
    if change.new_key:
        return {change.new_key if key == change.key else key: change.value if key == change.key else held for key, held in values.items()}
    rest = {key: value for key, value in values.items() if key != change.key}
    return rest if change.remove else {**rest, change.key: change.value}


def edit_json(text: str, edits: Sequence[Edit]) -> str | None:
    """The same for a JSON config: rewritten whole with its own indentation; None if it is no JSON object."""
    try:
        values = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    for change in edits:
        values = values | {change.key: change.value} if change.key in values and not change.new_key else values
        values = _after(values, change) if change.remove or change.new_key or change.key not in values else values
    indent = re.search(r"\n([ \t]+)\"", text)
    bom, end = "\ufeff" if text.startswith("\ufeff") else "", "\n" if text.endswith("\n") else ""
    return bom + json.dumps(values, indent=indent[1] if indent else None, ensure_ascii=False) + end


class _CannotEdit(Exception):
    """This style is beyond byte-span edits."""


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
    root = compose(text)
    if root is None:
        return {}, False
    if not isinstance(root, yaml.MappingNode):
        raise _CannotEdit
    places: dict[str, list[_Place]] = {}
    for key, value in root.value:
        if key.tag == MERGE or not isinstance(key, yaml.ScalarNode):
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


def _set(text: str, change: Edit) -> str:
    places, flow = _places(text)
    if change.key not in places:
        if flow:
            raise _CannotEdit
        return _add(text, places, change)
    for _ in places[change.key][:-1]:
        text = _remove_first(text, change.key)
    place = _places(text)[0][change.key][-1]
    if place.start == place.end:
        return f"{text[: place.colon + 1]} {dump(change.value)}{text[place.end :]}"
    if isinstance(change.value, Mapping) and change.value and not flow and "\n" not in text[place.colon : place.end]:
        stop = _line_end(text, place.end)
        block = _block(change.value, _column(text, place.key) + 2, _newline(text))
        return text[: place.colon + 1] + text[place.end : stop].rstrip() + _newline(text) + block + text[stop:]
    before = text[place.colon + 1 : place.start]
    start = text[: place.colon + 1] + " " if "\n" in before and not before.strip() else text[: place.start]
    return start + dump(change.value) + text[place.end :]


def _rename(text: str, change: Edit) -> str:
    """The key's own characters replaced, then its value where that is another one."""
    places, _ = _places(text)
    found = places.get(change.key, [])
    if len(found) != 1 or change.new_key in places or change.new_key is None:
        raise _CannotEdit
    place = found[0]
    name = text[place.key : place.colon].rstrip()
    quote = name[0] if name[0] in "\"'" else ""
    renamed = f"{text[: place.key]}{quote}{change.new_key}{quote}{text[place.key + len(name) :]}"
    if equal(load(renamed).get(change.new_key), change.value):
        return renamed
    return _set(renamed, Edit(change.new_key, change.value))


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


def _add(text: str, places: Mapping[str, list[_Place]], change: Edit) -> str:
    """A new key, behind the last key of `near` that is there, else behind the last key of all."""
    newline = _newline(text)
    known = [places[key][-1] for key in change.near if key in places] or [found[-1] for found in places.values()]
    place = max(known, key=lambda place: place.key, default=None)
    column = _column(text, place.key) if place else 0
    comment = f"  # {change.comment}" if change.comment else ""
    if isinstance(change.value, Mapping) and change.value:
        line = f"{' ' * column}{dump(change.key)}:{comment}{newline}{_block(change.value, column + 2, newline)}"
    else:
        line = f"{' ' * column}{dump(change.key)}: {dump(change.value)}{comment}"
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
