"""The only exceptions a user ever sees."""

from __future__ import annotations

from typing import Protocol

BAD_USAGE = 2
NOTHING_TO_READ = 3


class Translated(Protocol):
    """A message in every language (support/texts.py)."""

    def get(self, lang: str) -> str:
        """The message in one language."""


class DoctorError(Exception):
    """An error to be shown as one plain message; `exit_code` is 2 (bad usage, unreadable rule or config) or 3 (nothing to read).

    As a string it is English; `in_language` has the translation, if the message was given with one.
    """

    def __init__(self, message: str | Translated, exit_code: int = BAD_USAGE) -> None:
        super().__init__(message if isinstance(message, str) else message.get("en"))
        self._message = message
        self.exit_code = exit_code

    def in_language(self, lang: str) -> str:
        """The message in a language of the reports."""
        return self._message if isinstance(self._message, str) else self._message.get(lang)
