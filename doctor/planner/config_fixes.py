"""What `lfdoctor check` may write into a config: its safe fixes (--fix), and the plan's patch on top of them (--unsafe-fixes)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from doctor.config import files, fixes
from doctor.config.option_names import known_somewhere
from doctor.config.options import table
from doctor.config.patch import Change, Patch
from doctor.config.versions import NEWEST, parse
from doctor.config.yaml_edit import edit, edit_json
from doctor.errors import DoctorError
from doctor.planner.types import ConfigText, FixedBy
from doctor.planner.writing import edits
from doctor.support.texts import Text


class FixedConfig(msgspec.Struct, frozen=True):
    """A config's new text, how many fixes are in it, and one line for each key that was left."""

    text: str
    count: int
    left: tuple[Text, ...]


def fixed(
    source: ConfigText,
    values: Mapping[str, Any],
    patch: Sequence[Change] = (),
    because: Mapping[str, str] = MappingProxyType({}),
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> FixedConfig:
    """The config after its safe fixes and, if a patch is given, after what of it can be written here.

    An option of main or of another trainer is not removed. `facts` tell the versions, where they are known.
    Raises DoctorError if the fixed text cannot be read.
    """
    is_json = Path(source.path).suffix.lower() == ".json"
    safe = fixes.fix(source.text, values, json=is_json, facts=facts)
    now = files.parse(Path(source.path), safe.text)
    changes = [change for change in patch if change.target == "config" and not _made(change, now) and not _of_another_release(change)]
    wanted = edits(changes, because, safe.text)
    text = (edit_json if is_json else edit)(safe.text, wanted) if wanted else None
    return FixedConfig(safe.text if text is None else text, len(safe.done) + (0 if text is None else len(wanted)), safe.left)


def fixed_by(source: ConfigText, patch: Patch, facts: Mapping[str, Any] = MappingProxyType({})) -> FixedBy | None:
    """What `lfdoctor check` can write of this patch; None if it changes nothing in the config."""
    changes, path = [change for change in patch.changes if change.target == "config"], Path(source.path)
    if not changes:
        return None
    try:
        values = files.parse(path, source.text)
        results = [fixed(source, values, facts=facts), fixed(source, values, changes, facts=facts)]
        safe, unsafe = (all(_made(change, files.parse(path, result.text)) for change in changes) for result in results)
    except DoctorError:
        return "nothing"
    if not results[1].count:
        return "nothing"
    return "safe" if safe else "unsafe" if unsafe else "partly"


def _made(change: Change, values: Mapping[str, Any]) -> bool:
    return change.key not in values if change.op == "unset" else values.get(change.key) == change.new


def _of_another_release(change: Change) -> bool:
    """Whether the change removes an option of main or of another trainer (rules/versions.yaml): it may be right for this file."""
    option = table().get(change.key)
    newer = option is not None and option.of == "llamafactory" and parse(option.since or "") > NEWEST["llamafactory"]
    return change.op == "unset" and (option is None or newer) and known_somewhere(change.key)
