"""A report in another of its languages: texts that differ are kept by their place in the report, everything else once.

A place is a path like `findings.0.title`; `doctor/report/texts.py` collects them while the report is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from doctor.report.model import Report
from doctor.support.decoding import convert


def translated(report: Report, lang: str) -> Report:
    """The report in another language that it carries; if it does not carry it, the texts stay and only `lang` changes."""
    if lang == report.lang:
        return report
    if lang not in report.translations:
        return msgspec.structs.replace(report, lang=lang)
    data: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(report, curves=[], translations={}))
    texts = {language: dict(texts) for language, texts in report.translations.items()}
    chosen = texts.pop(lang)
    before: dict[str, str] = {}
    for place in sorted({*chosen, *(place for texts in report.translations.values() for place in texts)}):
        here = _get(data, place.split("."))
        if isinstance(here, str):
            before[place] = here
            _put(data, place.split("."), chosen.get(place, here))
    texts[report.lang] = {}
    others = {other: _differing(before, chosen, texts[other]) for other in sorted(texts)}
    whole = {**data, "lang": lang, "curves": msgspec.to_builtins(report.curves), "translations": others}
    return convert(whole, Report)


def _differing(before: dict[str, str], chosen: dict[str, str], texts: dict[str, str]) -> dict[str, str]:
    """The places where a language differs from the chosen one; `before` are the texts of the language that the report was in."""
    pairs = ((place, texts.get(place, text), chosen.get(place, text)) for place, text in before.items())
    return {place: text for place, text, new in pairs if text != new}


def _get(data: Any, path: Sequence[str]) -> Any:
    for key in path:
        data = _step(data, key)
    return data


def _put(data: Any, path: Sequence[str], text: str) -> None:
    """Sets a text that is there; a path that leads nowhere (of a report from elsewhere) was left out before."""
    *parents, last = path
    parent = _get(data, parents)
    parent[int(last) if isinstance(parent, list) else last] = text


def _step(data: Any, key: str) -> Any:
    if isinstance(data, dict):
        return data.get(key)
    return data[int(key)] if isinstance(data, list) and key.isdecimal() and int(key) < len(data) else None
