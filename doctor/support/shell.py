"""Words of a POSIX shell: a printed command is one line, and pasting it does what it says, whatever a path is called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'"}


def word(text: str) -> str:
    """`text` as one word on one line. Control characters are written as bash and zsh read them: $'a\\nb'."""
    if not _CONTROL.search(text):
        return shlex.quote(text)
    return "$'" + "".join(_ESCAPES.get(letter) or (f"\\x{ord(letter):02x}" if _CONTROL.match(letter) else letter) for letter in text) + "'"


def path(text: str) -> str:
    """A path as one word that no program takes for an option."""
    return word(f"./{text}" if text.startswith("-") else text)


def line(words: Iterable[str]) -> str:
    """A command of these words."""
    return " ".join(map(word, words))
