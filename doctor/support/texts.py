"""One text in every language of the reports."""

from __future__ import annotations

import msgspec


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text in every language of the reports; `{name}` and `{name:.1f}` stand for facts of the match."""

    en: str
    ko: str
    zh: str | None = None

    def get(self, lang: str) -> str:
        """The text in `lang`; English if there is no translation."""
        return getattr(self, lang, None) or self.en
