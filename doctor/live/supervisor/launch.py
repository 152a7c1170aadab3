"""The command of a training: which word is its YAML, which words override it, and the same command with another YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.config import yaml_edit
from doctor.config.deepspeed import deepspeed_settings
from doctor.config.options import table
from doctor.config.patch import Change, apply
from doctor.config.yaml_edit import Edit
from doctor.planner import writing

_CONFIG = (".yaml", ".yml", ".json")
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=.*", re.DOTALL)
_TRAINING_KEYS = ("model_name_or_path", "output_dir", "stage", "dataset")
"""A YAML that holds none of these configures something else (accelerate, DeepSpeed)."""


class Launch(msgspec.Struct, frozen=True):
    """A command and its training config: `config` is the file as given, `text` the YAML with the command's own overrides in it."""

    command: list[str]
    place: int | None = None
    config: Path | None = None
    text: str | None = None
    overridden: bool = False

    @classmethod
    def of(cls, command: Sequence[str]) -> Launch:
        """Find the training config among the words; without one (a script, flags) only the command is known."""
        words = list(command)
        for place, word in enumerate(words):
            path = Path(word)
            text = _read(path) if word.endswith(_CONFIG) else None
            if text is None:
                continue
            values = yaml_edit.load(text)
            if not any(key in values for key in _TRAINING_KEYS):
                continue
            if path.suffix == ".json":
                text = written_out(values)
            given = _overrides(words[place + 1 :])
            baked = edited(text, [Edit(key, value) for key, value in given.items()]) if given else text
            return cls(words, place, path, baked, overridden=bool(given))
        return cls(words)

    def with_config(self, path: Path) -> list[str]:
        """The command with another YAML; the words that overrode the old one are in the new one already."""
        if self.place is None:
            return list(self.command)
        rest = [word for word in self.command[self.place + 1 :] if not _OVERRIDE.fullmatch(word)]
        return [*self.command[: self.place], str(path), *rest]


def patched(text: str, changes: Iterable[Change], because: Mapping[str, str]) -> str:
    """The YAML with the changes, each with its remedy in a comment; settings of a DeepSpeed file move into the YAML."""
    changes = _inlined(yaml_edit.load(text), changes)
    return edited(text, writing.edits(changes, because, text))


def edited(text: str, edits: Sequence[Edit]) -> str:
    """The text with the edits in place; if it cannot be edited safely, the values as a new YAML."""
    out = yaml_edit.edit(text, edits)
    if out is not None:
        return out
    values = yaml_edit.load(text)
    for edit in edits:
        if edit.remove:
            values.pop(edit.key, None)
        else:
            values[edit.key] = edit.value
    return written_out(values)


def written_out(values: Mapping[str, Any]) -> str:
    """A config as plain YAML, one key per line."""
    return "".join(f"{key}: {yaml_edit.dump(value)}\n" for key, value in values.items())


def _inlined(config: Mapping[str, Any], changes: Iterable[Change]) -> list[Change]:
    """The changes, those of a DeepSpeed file replaced by one of `deepspeed` to the changed settings: the file is not ours to change."""
    changes = list(changes)
    in_file = [change for change in changes if change.target == "deepspeed"]
    if not in_file:
        return changes
    given = apply(config, changes).get("deepspeed")
    settings = deepspeed_settings(given)
    if settings is None and (text := _read(Path(str(given)))) is not None:
        settings = deepspeed_settings(text)
    settings = dict(settings or {})
    for change in in_file:
        _put(settings, change.key.split("."), change.new)
    return [*(change for change in changes if change.target != "deepspeed"), Change("config", "set", "deepspeed", given, settings)]


def _put(settings: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        inner = settings.get(key)
        settings[key] = dict(inner) if isinstance(inner, Mapping) else {}
        settings = settings[key]
    settings[path[-1]] = value


def _overrides(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as OmegaConf.from_cli reads them: the value is YAML."""
    out: dict[str, Any] = {}
    for word in words:
        if _OVERRIDE.fullmatch(word):
            key, _, value = word.partition("=")
            if key in table() or "." not in key:
                out[key] = yaml_edit.load(f"value: {value}").get("value") if _readable(value) else value
    return out


def _readable(value: str) -> bool:
    try:
        yaml_edit.load(f"value: {value}")
    except yaml_edit.NotReadable:
        return False
    return True


def _read(path: Path) -> str | None:
    """The text of a file that holds a mapping, or None."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return text if isinstance(json.loads(text), dict) else None
        yaml_edit.load(text)
    except (OSError, ValueError):
        return None
    return text
