"""One text in every language of the reports."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text in every language of the reports; `{name}` and `{name:.1f}` stand for facts of the match."""

    en: str
    ko: str
    zh: str | None = None

    def get(self, lang: str) -> str:
        """The text in `lang`; English if there is no translation."""
        return getattr(self, lang, None) or self.en


def with_names(template: str, names: Mapping[str, str] | None = None) -> str:
    """A text whose placeholders nobody fills: they are shown as `<name>`, by `names` where it has another word for one."""
    shown = names or {}
    return re.sub(r"\{([\w./]+)(?::[^{}]*)?\}", lambda found: f"<{shown.get(found[1], found[1])}>", template)
