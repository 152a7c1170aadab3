"""A report's sentences in several languages: what differs from language to language, by its place in the report.

A place is a path like `findings.0.title`. Everything that is the same in every language (evidence, numbers, YAML) is kept once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from doctor.support.decoding import convert

if TYPE_CHECKING:
    from doctor.report.model import Report

_OF_THE_LANGUAGE = ("lang", "translations", "curves")


def with_translations(report: Report, others: Sequence[Report]) -> Report:
    """`report`, carrying what differs in `others`: the same report in other languages."""
    told = _plain(report)
    translations = {other.lang: dict(_differences(told, _plain(other))) for other in sorted(others, key=lambda one: one.lang)}
    return msgspec.structs.replace(report, translations=translations)


def translated(report: Report, lang: str) -> Report:
    """The report in another language that it carries; where it carries none, the sentences stay and only `lang` changes."""
    if lang == report.lang:
        return report
    if lang not in report.translations:
        return msgspec.structs.replace(report, lang=lang)
    views = [_in(report, code) for code in (report.lang, *report.translations)]
    chosen = next(view for view in views if view.lang == lang)
    return with_translations(chosen, [view for view in views if view is not chosen])


def _in(report: Report, lang: str) -> Report:
    """One language alone."""
    data = _plain(report)
    for place, text in report.translations.get(lang, {}).items():
        _put(data, place.split("."), text)
    whole = {**data, "lang": lang, "curves": msgspec.to_builtins(report.curves), "translations": {}}
    return convert(whole, type(report))


def _plain(report: Report) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(report, curves=[], translations={}))
    return {key: value for key, value in data.items() if key not in _OF_THE_LANGUAGE}


def _differences(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Texts of `b` that stand at the same place in `a` and read otherwise."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() & b.keys() if len(a) != len(b) else a:
            yield from _differences(a[key], b.get(key), f"{place}.{key}" if place else key)
    elif isinstance(a, list) and isinstance(b, list):
        for number, (one, other) in enumerate(zip(a, b, strict=False)):
            yield from _differences(one, other, f"{place}.{number}")
    elif isinstance(a, str) and isinstance(b, str) and a != b:
        yield place, b


def _put(data: Any, path: Sequence[str], text: str) -> None:
    """Sets a text; a path that leads nowhere (of a report from elsewhere) is left."""
    *parents, last = path
    for key in parents:
        data = _step(data, key)
    if isinstance(data, dict) and isinstance(data.get(last), str):
        data[last] = text
    elif isinstance(data, list) and last.isdecimal() and int(last) < len(data) and isinstance(data[int(last)], str):
        data[int(last)] = text


def _step(data: Any, key: str) -> Any:
    if isinstance(data, dict):
        return data.get(key)
    return data[int(key)] if isinstance(data, list) and key.isdecimal() and int(key) < len(data) else None
