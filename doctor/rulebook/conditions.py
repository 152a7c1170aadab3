"""The condition language of rules, over config, facts and run.

- A mapping holds if all its entries hold; a list of mappings if any holds. `not:`, `any:` and `all:` nest.
- A path starts with `config.` (effective value: the given value or LLaMA-Factory's default), `written.` (the given value alone; missing if
  the option is left at its default), `fact.` or `run.`.
- A wanted value is a scalar (equal), a list (equal to any), or a mapping of the operators lt, le, gt, ge, ne, in, set, matches
  (regular expression, searched in the value as text), before (an older version than this one: 0.8.10 is before 0.9).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Condition = Mapping[str, Any] | list[Any]
Scope = Mapping[str, Mapping[str, Any]]

MISSING: Any = object()
"""Result of `look_up` for a path without a value."""

ROOTS = ("config", "written", "fact", "run")
"""First parts of a path."""

_NESTING = ("not", "any", "all")
"""Keys whose value is a condition or a list of conditions."""

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
"""Operators that need a value; false if it is missing or not comparable."""

OPERATORS = (*_ORDER, "ne", "in", "set", "matches", "before")
"""All operators."""


def holds(condition: Condition, scope: Scope) -> bool:
    """Whether `condition` is true in `scope`: {"config": {...}, "written": {...}, "fact": {...}, "run": {...}}; an empty one is true."""
    if isinstance(condition, list):
        return any(holds(part, scope) for part in condition)
    return all(_line_holds(key, wanted, scope) for key, wanted in condition.items())


def problems(condition: Any) -> Iterator[str]:
    """Yield a sentence per syntax error in a condition."""
    if isinstance(condition, list):
        for part in condition:
            yield from problems(part)
    elif not isinstance(condition, Mapping):
        yield f"a condition is a mapping or a list of mappings, not {condition!r}"
    else:
        for key, wanted in condition.items():
            yield from _line_problems(str(key), wanted)


def paths(condition: Any) -> Iterator[str]:
    """Every path (`config.lora_rank`) in a condition."""
    for path, _ in comparisons(condition):
        yield path


def comparisons(condition: Any) -> Iterator[tuple[str, Any]]:
    """Every path in a condition with the value that it is compared with, at any depth."""
    if isinstance(condition, list):
        for part in condition:
            yield from comparisons(part)
    elif isinstance(condition, Mapping):
        for key, wanted in condition.items():
            if key in _NESTING:
                yield from comparisons(wanted)
            else:
                yield key, wanted


def look_up(path: str, scope: Scope) -> Any:
    """The value at `config.x`, `written.x`, `fact.a.b` or `run.y`, else MISSING. Dots after the first belong to the name."""
    root, _, name = path.partition(".")
    return scope.get(root, {}).get(name, MISSING)


def same_value(a: Any, b: Any) -> bool:
    """Equality of YAML values: true is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _line_holds(key: str, wanted: Any, scope: Scope) -> bool:
    if key == "not":
        return not holds(wanted, scope)
    if key == "any":
        return any(holds(part, scope) for part in wanted)
    if key == "all":
        return all(holds(part, scope) for part in wanted)
    value = look_up(key, scope)
    if isinstance(wanted, Mapping):
        return all(_compare(value, operator, argument) for operator, argument in wanted.items())
    if isinstance(wanted, list):
        return any(_equal(value, choice) for choice in wanted)
    return _equal(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one; a missing option equals null."""
    if wanted is None:
        return value is MISSING or value is None
    return same_value(value, wanted)


def _compare(value: Any, operator: str, argument: Any) -> bool:
    absent = value is MISSING or value is None
    if operator == "set":
        return absent is not argument
    if operator == "ne":
        return not _equal(value, argument)
    if operator == "in":
        return any(_equal(value, choice) for choice in argument)
    if absent:
        return False
    if operator == "matches":
        return re.search(argument, str(value)) is not None
    if operator == "before":
        return bool(_version(value)) and _version(value) < _version(argument)
    try:
        return _ORDER[operator](value, argument)
    except TypeError:
        return False


def _version(text: Any) -> tuple[int, ...]:
    """The numbers at the beginning of a version; () for a name such as main."""
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)", str(text))
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _line_problems(key: str, wanted: Any) -> Iterator[str]:
    if key in _NESTING:
        yield from problems(wanted)
    elif key.partition(".")[0] not in ROOTS or "." not in key:
        yield f"a path begins with config., written., fact. or run., not {key!r}"
    elif isinstance(wanted, Mapping):
        for operator, argument in wanted.items():
            if operator not in OPERATORS:
                yield f"unknown operator {operator!r} for {key} (known: {', '.join(OPERATORS)})"
            elif operator == "matches":
                yield from _regex_problems(key, argument)


def _regex_problems(key: str, pattern: Any) -> Iterator[str]:
    try:
        re.compile(str(pattern))
    except re.error as error:
        yield f"the pattern for {key} is no regular expression: {error}"
