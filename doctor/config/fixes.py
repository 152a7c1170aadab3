"""Safe fixes of a config: the same training in LLaMA-Factory's own names and values. From tables; nothing is guessed, nothing dropped."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from doctor.config import yaml_edit
from doctor.config.corrections import correction, from_text
from doctor.config.option_names import Synonym, standing, synonyms
from doctor.config.options import Option, suggestion, table
from doctor.config.recognise import shape_of, written_for_llamafactory
from doctor.config.versions import NEWEST
from doctor.config.yaml_edit import Edit
from doctor.support.texts import Text
from doctor.words import catalogue


class Fix(msgspec.Struct, frozen=True):
    """One change: `key` becomes `new_key` with `value`; both names are equal where only the value changes."""

    key: str
    new_key: str
    value: Any

    @property
    def edit(self) -> Edit:
        """The fix as an edit of the text."""
        return Edit(self.key, self.value, new_key=None if self.new_key == self.key else self.new_key)


class Fixes(msgspec.Struct, frozen=True):
    """The text with all fixes that could be made, those fixes, and one line for each key that was left."""

    text: str
    done: tuple[Fix, ...] = ()
    left: tuple[Text, ...] = ()


def fix(text: str, values: Mapping[str, Any], *, json: bool = False, facts: Mapping[str, Any] | None = None) -> Fixes:
    """The safe fixes of a config with this text and these values; a text of another program comes back as it is.

    `facts` tell the versions (`versions.llamafactory`), where they are known.
    """
    if shape_of(values) != "v0" or "task" in values:
        return Fixes(text)
    done: list[Fix] = []
    left: list[Text] = []
    edit = yaml_edit.edit_json if json else yaml_edit.edit
    for found in _proposals(values, facts or {}):
        if isinstance(found, Text):
            left.append(found)
            continue
        changed = edit(text, [found.edit])
        if changed is None:
            line = f"{found.new_key}: {yaml_edit.dump(found.value)}"
            left.append(catalogue.text("check.not_edited", key=found.key, line=line))
        else:
            text = changed
            done.append(found)
    return Fixes(text, tuple(done), tuple(left))


def _proposals(values: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Fix | Text]:
    """A fix for every key that needs one, or what to say about it; in the order of the file.

    An older name that some possible version still takes is renamed as well: every supported version knows its successor.
    """
    own = written_for_llamafactory(values)
    taken = set(values)
    for key, value in values.items():
        synonym, found_there = synonyms().get(key), standing(key, facts, values)
        gone = found_there.kind == "unknown" or found_there.until is not None
        if synonym is not None and synonym.use != key and gone:
            for found in _renamed(key, value, synonym, own, taken):
                taken |= {found.new_key} if isinstance(found, Fix) else set()
                yield found
        elif found_there.kind == "unknown":
            yield unknown(key)
        else:
            for corrected in _corrected(key, value, taken):
                taken.add(corrected.new_key)
                yield corrected


def _renamed(key: str, value: Any, synonym: Synonym, own: bool, taken: set[str]) -> Iterator[Fix | Text]:
    name = synonym.use
    if name is None:
        yield catalogue.text("check.unknown_note", key=key, note=synonym.note)
    elif name in taken:
        yield catalogue.text("check.unknown_set_twice", key=key, name=name)
    elif not own:
        yield catalogue.text("check.unknown_other_name", key=key, name=name)
    else:
        try:
            new = _typed(synonym.translate(value), table()[name])
        except (KeyError, ValueError):
            yield catalogue.text("check.unknown_no_value", key=key, name=name, value=yaml_edit.dump(value))
            return
        yield Fix(key, name, new)
        yield from (Fix(other, other, given) for other, given in synonym.also.items() if other not in taken)


def _corrected(key: str, value: Any, taken: set[str]) -> Iterator[Fix]:
    """The right spelling of a value, and what goes with it."""
    meant = correction(key, value)
    if meant is not None:
        yield Fix(key, key, meant.value)
        yield from (Fix(other, other, given) for other, given in meant.also.items() if other not in taken)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "bool": bool, "int": int, "float": (int, float), "str": str, "list": list, "dict": dict, "null": type(None), "any": object,
}  # fmt: skip


def _typed(value: Any, option: Option) -> Any:
    """`value` as the option takes it. Raises ValueError where it does not."""
    if isinstance(value, str):
        value = from_text(value, option)
    words = option.type.split("|")
    if not any(isinstance(value, _KINDS[word]) for word in words) or (isinstance(value, bool) and not {"bool", "any"} & set(words)):
        raise ValueError(value)
    if option.choices and isinstance(value, str) and value not in option.choices:
        raise ValueError(value)
    return value


def unknown(key: str) -> Text:
    """What to say about a key that LLaMA-Factory does not have."""
    option = table().get(key)
    if option is not None:
        name = "check.gone" + ("_after" if option.until else "") + ("_now" if option.use else "")
        release = f"{'LLaMA-Factory' if option.of == 'llamafactory' else option.of} {option.until}"
        return catalogue.text(name, key=key, release=release, use=option.use)
    near = suggestion(key, NEWEST)
    return catalogue.text("check.unknown_near", key=key, near=near) if near else catalogue.text("check.unknown", key=key)


def diff(name: str, old: str, new: str) -> str:
    """A unified diff of one file."""
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name} (fixed)", n=2)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
