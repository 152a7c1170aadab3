"""The decision table for exceptions that no rule lists (rules/exceptions.yaml): its records, loaded when they are first asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.rulebook import data_file
from doctor.rulebook.model import Body, Remedy, Rule, Symptom
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

FILE = "exceptions.yaml"
LIKELY, POSSIBLE = 0.75, 0.55
"""Confidence of a row's word, inside the steps of words/catalogue.py."""
UNKNOWN = "unknown"
"""The cause of a row that tells the family alone."""


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One form that a row's failure takes; every given part must hold.

    - `exception`: classes, without module; a base counts for its subclasses.
    - `errno` (Linux names), `signal` (numbers), `phase`, `runtime`, `package` (of the telling frame): one of them.
    - `place`, `raised`, `frames`: regular expressions on `package/module:function` of the telling frame, the innermost, any frame.
    - `code`: on the source line of any frame.
    - `text`: on `Class: message`, upper or lower case; its named groups become facts. `none_of`: must not match there.
    - `cut_off`: whether the traceback lacks its exception; without it only complete ones and lone lines are meant.
    - `config`: regular expressions of whole values, by option; a key that the run does not give does not hold.
    """

    exception: list[str] = []
    errno: list[str] = []
    signal: list[int] = []
    phase: list[str | None] = []
    runtime: list[str] = []
    package: list[str] = []
    place: str | None = None
    raised: str | None = None
    frames: str | None = None
    code: str | None = None
    text: str | None = None
    none_of: str | None = None
    cut_off: bool = False
    config: dict[str, str] = {}
    example: str


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an experienced engineer concludes from one kind of exception.

    `say` may name the facts of `doctor.diagnosis.unlisted.answer` and the groups that each of its forms has. `sure`: how far the form
    proves the cause. `witness` as in a rule. `do` is what helps, in words; `remedies` are remedies as in a rule.
    """

    id: str
    cause: str
    family: str
    symptom: Symptom
    sure: Literal["likely", "possible"]
    when: list[Form]
    title: Text
    say: Text
    do: Text | None = None
    command: str | None = None
    remedies: list[Remedy] = []
    witness: list[str]

    @property
    def confidence(self) -> float:
        """0..1, of the word in `sure`."""
        return LIKELY if self.sure == "likely" else POSSIBLE

    def rule(self, opening: Text) -> Rule:
        """The row as a rule, so that planner and report treat its finding like any other; `opening` comes before `say`."""
        said = Body(f"{opening.en} {self.say.en}", f"{opening.ko} {self.say.ko}", f"{opening.get('zh')}{self.say.get('zh')}")
        own = [Remedy(id=self.id, text=self.do, effect="manual", command=self.command)] if self.do else []
        return Rule(
            id=f"{self.family}/{self.id}",
            cause=self.cause,
            symptom=self.symptom,
            severity="error",
            when={"uncaught_exception": {}},
            title=self.title,
            body=[said],
            confidence=self.confidence,
            remedies=[*self.remedies, *own],
            witness=self.witness,
        )


@cache
def rows(file: Path | None = None) -> tuple[Row, ...]:
    """All rows in their order: the first whose form holds decides. Raises DoctorError for a file that cannot be read as rows."""
    return tuple(data_file.read(file or rules_folder() / FILE, list[Row]))


def named(form: Form) -> set[str]:
    """The facts that a form takes from the text."""
    import re

    return set(re.compile(form.text or "").groupindex)


def as_facts(groups: dict[str, Any]) -> dict[str, Any]:
    """The groups that matched something."""
    return {name: value for name, value in groups.items() if value}
