"""A rule by the name that a person gives it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from doctor.errors import DoctorError
from doctor.rulebook.exceptions import rows
from doctor.rulebook.model import Rule, Rulebook
from doctor.words import catalogue


def find(book: Rulebook, name: str, *, also: Iterable[str] = ()) -> list[Rule]:
    """The rule with this id, else all with this name or cause. Raises DoctorError with similar names, also of the options in `also`."""
    exact = [rule for rule in book.rules if rule.id == name]
    found = exact or [rule for rule in book.rules if name in (rule.id.partition("/")[2], rule.cause)]
    opening = catalogue.text("report.say.unlisted_bare")
    found = found or [row.rule(opening) for row in rows() if name in (row.id, row.cause, f"{row.family}/{row.id}")]
    if found:
        return found
    names = {rule.id.partition("/")[2]: rule.id for rule in book.rules} | {rule.id: rule.id for rule in book.rules}
    near = dict.fromkeys(names[match] for match in difflib.get_close_matches(name, names, n=4, cutoff=0.5))
    near |= dict.fromkeys(difflib.get_close_matches(name, list(also), n=3, cutoff=0.7))
    if near:
        raise DoctorError(catalogue.text("errors.nothing_named", name=repr(name), near=", ".join(near)))
    raise DoctorError(catalogue.text("errors.nothing_named_list", name=repr(name)))
