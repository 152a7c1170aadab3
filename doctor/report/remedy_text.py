"""The sentence of a remedy, with the options that it changes here: `(lora_rank: 64 → 32)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from doctor.config import yaml_edit
from doctor.config.patch import Change
from doctor.privacy.secrets import plain
from doctor.report.quoting import fill
from doctor.rulebook.model import CHANGES
from doctor.words.catalogue import Words

MAX_CHANGES = 3
"""Changes told in one sentence; the patch shows all."""
MAX_VALUE_CHARS = 40
"""A longer value (inline DeepSpeed settings) is left out of the sentence."""


def remedy_text(template: str, changes: Sequence[Change], known: Callable[[str], Any], words: Words) -> str:
    """A remedy's text with its facts, and `{changes}` replaced by what changes here; by nothing where nothing does."""
    parts = [fill(part, known) for part in template.split(CHANGES)]
    told = [_told(change, words) for change in changes[:MAX_CHANGES]]
    return (words("remedy_changes", changes=words("comma").join(told)) if told else "").join(parts)


def _told(change: Change, words: Words) -> str:
    """One change as code: `key: old → new`, `key: new` where no old value was given, `KEY=value` for the environment."""
    if change.op == "unset":
        return words("remedy_removes", key=change.key)
    old, new = (yaml_edit.dump(plain(value, change.key)) for value in (change.old, change.new))
    if len(new) > MAX_VALUE_CHARS:
        return f"`{change.key}`"
    if change.target == "env":
        return f"`{change.key}={plain(change.new, change.key)}`"
    return f"`{change.key}: {new}`" if change.old is None or len(old) > MAX_VALUE_CHARS else f"`{change.key}: {old} → {new}`"
