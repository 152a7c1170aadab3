"""What a value that LLaMA-Factory cannot use surely means: quoted numbers, flags, capitals, other frameworks' names of one value."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import msgspec

from doctor.config.option_names import synonyms
from doctor.config.options import Option, table
from doctor.config.values import as_number

_FLAGS = {"true": True, "false": False}


class Correction(msgspec.Struct, frozen=True):
    """The right value, and the options that go with it where the config has none."""

    value: Any
    also: Mapping[str, Any] = {}


def correction(key: str, value: Any) -> Correction | None:
    """What `value` of the option `key` means, by tables alone; None where it is right, or where nothing certain is known of it."""
    option, synonym = table().get(key), synonyms().get(key)
    if option is None:
        return None
    if synonym is not None and synonym.use == key and isinstance(value, Hashable) and value in synonym.values:
        try:
            return Correction(synonym.translate(value), synonym.also)
        except KeyError:  # equal, but of another type: 0 is not false
            pass
    if isinstance(value, str) and value not in (option.choices or ()):
        new = from_text(value, option)
        return None if new is value else Correction(new)
    return None


def from_text(value: str, option: Option) -> Any:
    """A text as the number, flag, null or choice that it spells; the text itself where the option takes texts or nothing fits."""
    words = option.type.split("|")
    if "str" not in words and {"int", "float"} & set(words):
        number = as_number(value)
        if number is not None and ("float" in words or isinstance(number, int)):
            return number if "int" in words else float(number)
    if "str" not in words and "bool" in words and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    if value in ("None", "NULL") and "null" in words:
        return None
    alike = [choice for choice in option.choices or () if isinstance(choice, str) and choice.lower() == value.lower()]
    return alike[0] if len(alike) == 1 else value
