"""The row of the decision table that an exception fits, and what the row's expressions took from its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.diagnosis.unlisted.places import Place
from doctor.rulebook.exceptions import Form, Row, as_facts, rows


class Conclusion(msgspec.Struct, frozen=True):
    """A row that holds, and the facts of its groups."""

    row: Row
    facts: dict[str, str]


def conclude(features: ExceptionFeatures, table: Sequence[Row] | None = None) -> Conclusion | None:
    """The first row of which a form holds; None if none does."""
    for row in rows() if table is None else table:
        for form in row.when:
            facts = _holds(form, features)
            if facts is not None:
                return Conclusion(row, facts)
    return None


def _holds(form: Form, seen: ExceptionFeatures) -> dict[str, str] | None:
    """The facts that the form takes from the exception; None if it does not hold. Cheap questions come first."""
    if form.cut_off is not seen.cut_off or not _one_of(form.exception, seen.classes):
        return None
    if not (_is_one_of(form.errno, seen.errno) and _is_one_of(form.signal, seen.signal) and _is_one_of(form.phase, seen.phase)):
        return None
    if not (_is_one_of(form.package, seen.package) and _one_of(form.runtime, seen.runtimes) and _config(form.config, seen.config)):
        return None
    if not (_at(form.place, [seen.place]) and _at(form.raised, [seen.raised]) and _at(form.frames, seen.path)):
        return None
    if form.code is not None and not any(_compiled(form.code).search(place.code) for place in seen.path):
        return None
    return _text(form, seen.text, seen.said)


def _text(form: Form, text: str, line: str) -> dict[str, str] | None:
    found = _compiled(form.text).search(text) if form.text is not None else None
    if form.text is not None and found is None:
        return None
    if form.none_of is not None and any(map(_compiled(form.none_of).search, (text, line))):
        return None
    return as_facts(found.groupdict()) if found else {}


def _one_of(wanted: Sequence[str], given: Iterable[str]) -> bool:
    return not wanted or not set(wanted).isdisjoint(given)


def _is_one_of(wanted: Sequence[object], given: object) -> bool:
    return not wanted or given in wanted


def _at(pattern: str | None, found: Iterable[Place | None]) -> bool:
    return pattern is None or any(place is not None and _compiled(pattern).search(place.name) for place in found)


def _config(wanted: Mapping[str, str], given: Mapping[str, str]) -> bool:
    return all(name in given and _compiled(pattern).fullmatch(given[name]) for name, pattern in wanted.items())


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)
