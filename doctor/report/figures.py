"""Evidence that a detector writes from figures ("loss 6.563 where 2.64 was usual"), in the report's language."""

from __future__ import annotations

import re
from functools import cache

from doctor.words import catalogue
from doctor.words.catalogue import Words

_PLACE = re.compile(r"\\\{(\w+)\\\}")


def in_language(sentence: str, words: Words) -> str:
    """A sentence of words/evidence.yaml in the language of `words`; anything else (a quoted log line) as it is."""
    if words.lang == "en" or "\n" in sentence:
        return sentence
    for name, pattern in _patterns():
        found = pattern.fullmatch(sentence)
        if found:
            return catalogue.say(f"evidence.{name}", words.lang, **found.groupdict())
    return sentence


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """The detectors' English forms; a placeholder stands for a figure or a name without blanks."""
    forms = ((name, re.escape(text.en)) for name, text in catalogue.texts("evidence").items())
    return [(name, re.compile(_PLACE.sub(r"(?P<\1>\\S+?)", form))) for name, form in forms]
