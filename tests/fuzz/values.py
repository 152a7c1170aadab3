"""Odd values and texts, and what they do to JSON, YAML and the numbers in a text."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import yaml

Dice = random.Random

_LARGE = {"@integer-of-5001-digits@": "1" + "0" * 5000, "@float-beyond-double@": "1e999", "@negative-beyond-double@": "-1e999"}
"""Numbers that Python's writers refuse: the text is put in afterwards."""

_NESTED: Any = 0
for _ in range(200):
    _NESTED = [_NESTED]

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**40, 10**400, 0.0, -0.0, 1e308, -1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"), "", " ", "nan", "NaN", "inf", "-Infinity", "None", "null", "true", "no", "1e5", "1_000",
    "0x10", "1,5", "½", "-", ".", "auto", "x" * 20_000, "\ud800", "\x00", "\x1b[31m", "a\nb", "$(id)", "'\"", "[link](x)", "<b>", "학습",
    [], {}, [None], [[]], {"": None}, {"a": {"b": []}}, [1, "a", None], [float("nan")] * 3, _NESTED, *_LARGE,
)  # fmt: skip
"""What a program, a person or a damaged disk may leave where a value is expected."""

ODD_NUMBERS = (
    b"0", b"-1", b"1", b"nan", b"NaN", b"inf", b"-inf", b"Infinity", b"1e308", b"1e999", b"-1e999", b"9223372036854775808",
    b"1" + b"0" * 400,    b"1" + b"0" * 5000,
    b"0x1F", b"1_000", b"1.2.3", b"1e", b"--5", b"\xef\xbc\x91\xef\xbc\x92", b"\xd9\xa3", b"\xc2\xb2", b"", b"00012", b"5e-324",
    b"1" * 50_000,
)  # fmt: skip
"""What may stand in the place of a number in a log: full-width, Arabic and superscript digits among it."""

_NUMBER = re.compile(rb"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def odd_numbers(data: bytes, dice: Dice) -> bytes:
    """One number of a text, or all equal ones, or every tenth, by an odd one."""
    places = list(_NUMBER.finditer(data))
    if not places:
        return data
    chosen, new = dice.choice(places), dice.choice(ODD_NUMBERS)
    kind = dice.randrange(3)
    if kind == 0 or len(new) > 1000:
        return data[: chosen.start()] + new + data[chosen.end() :]
    if kind == 1:
        return _NUMBER.sub(lambda found: new if found[0] == chosen[0] else found[0], data)
    return _NUMBER.sub(lambda found: dice.choice(ODD_NUMBERS[:18]) if dice.random() < 0.1 else found[0], data)


def odd_json(data: bytes, dice: Dice) -> bytes:
    """A few values of a JSON document, or of lines of JSON, by odd ones; keys taken away, added or renamed."""
    try:
        whole = [json.loads(data)]
        end = ""
    except (ValueError, RecursionError):
        try:
            whole = [json.loads(line) for line in data.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            return data
        end = "\n"
    changed = _changed(whole, dice)
    try:
        texts = [_json(value) for value in changed]
    except ValueError:  # a value that holds itself
        return data
    return "".join(text + end for text in texts).encode("utf-8", "replace")


def odd_yaml(data: bytes, dice: Dice) -> bytes:
    """The same of a YAML mapping."""
    try:
        values = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError):
        return data
    if not isinstance(values, dict):
        return data
    changed = _changed([values], dice)[0]
    try:
        text = yaml.dump(changed, sort_keys=False, allow_unicode=True, Dumper=yaml.SafeDumper)
    except (yaml.YAMLError, ValueError, RecursionError):
        text = _json(changed)
    return _numbers_beyond(text).encode("utf-8", "replace")


def _json(value: Any) -> str:
    return _numbers_beyond(json.dumps(value))


def _numbers_beyond(text: str) -> str:
    for name, number in _LARGE.items():
        text = text.replace(f'"{name}"', number).replace(f"'{name}'", number).replace(name, number)
    return text


def _changed(whole: list[Any], dice: Dice) -> list[Any]:
    for _ in range(dice.choice((1, 1, 2, 5))):
        places = list(islice(_places(whole), 20_000))  # aliases of YAML can hold the same list a million times
        if not places:  # an empty document
            break
        holder, key = dice.choice(places)
        if isinstance(holder, dict) and dice.random() < 0.25:
            _KEYS[dice.randrange(len(_KEYS))](holder, key, dice)
        elif isinstance(holder, list) and len(holder) > 1 and dice.random() < 0.2:
            holder.insert(dice.randrange(len(holder)), holder.pop(dice.randrange(len(holder))))
        else:
            holder[key] = dice.choice(ODD)
    return whole


def _places(value: Any) -> Any:
    """(container, key) of everything inside a value."""
    stack = [value]
    while stack:
        held = stack.pop()
        if len(stack) > 5_000:
            return
        for key, inner in list(held.items() if isinstance(held, dict) else enumerate(held)):
            yield held, key
            if isinstance(inner, dict | list) and inner and inner is not _NESTED:
                stack.append(inner)


def _removed(holder: dict[Any, Any], key: Any, dice: Dice) -> None:
    holder.pop(key)


def _renamed(holder: dict[Any, Any], key: Any, dice: Dice) -> None:
    holder[dice.choice(("", " ", "loss", "step", str(key) + "x", "\ud800", "a.b", "x" * 3000, "__class__"))] = holder.pop(key)


def _swapped(holder: dict[Any, Any], key: Any, dice: Dice) -> None:
    other = dice.choice(list(holder))
    holder[key], holder[other] = holder[other], holder[key]


_KEYS: tuple[Callable[[dict[Any, Any], Any, Dice], None], ...] = (_removed, _renamed, _swapped)
