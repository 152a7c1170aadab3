"""What the words of a description say (rules/descriptions.yaml): symptoms, phases and contexts, and the cause that they point to."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

import msgspec

from doctor.rulebook import data_file
from doctor.rulebook.model import Symptom
from doctor.support.package_files import rules_folder

FILE = "descriptions.yaml"


class Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One notion and the expression for it in any language. `config`: option -> expression of a whole value that says the same.

    A phase belongs to the symptom of its sentence, a context to the whole text. `of_programs`: programs that go on tell the symptom in the
    same words.
    """

    kind: Literal["symptom", "phase", "context"]
    text: str
    config: dict[str, str] = {}
    of_programs: bool = False
    examples: list[str]


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a text that says all of `said` may mean: `cause`, if one is likelier than all others, and `others`, likeliest first."""

    said: list[str]
    symptom: Symptom
    cause: str | None = None
    others: list[str] = []
    example: str

    @property
    def causes(self) -> list[str]:
        """All of them, likeliest first."""
        return [self.cause, *self.others] if self.cause else self.others


class Descriptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vocabulary by name, and the readings in their order: the first whose words were all said decides."""

    words: dict[str, Word]
    rows: list[Reading]


@cache
def descriptions() -> Descriptions:
    """The vocabulary and its readings. Raises DoctorError for a file that cannot be read as such."""
    return data_file.read(rules_folder() / FILE, Descriptions)


@cache
def expression(name: str) -> re.Pattern[str]:
    """The compiled expression of a word: letters are ASCII, so that a word may touch Chinese or Korean ones."""
    return re.compile(descriptions().words[name].text, re.IGNORECASE | re.ASCII)
