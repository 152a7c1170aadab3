"""The catalogue of every text that users read, apart from the rules: one YAML file per subject, the languages of a text side by side."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import msgspec

from doctor.errors import DoctorError
from doctor.support.cache import load_yaml
from doctor.support.decoding import convert
from doctor.support.languages import LANGUAGES
from doctor.support.texts import Text
from doctor.words.josa import resolve_josa

FILES = (
    "report",
    "page",
    "planner",
    "healing",
    "fleet",
    "live",
    "evidence",
    "origins",
    "releases",
    "check",
    "estimate",
    "errors",
    "data",
    "exceptions",
    "repeat",
    "write_back",
)
"""The files of the catalogue; a text's full name is `file.name` or `file.group.name`."""
_GROUPS = ("severity", "run_status", "advice", "confidence", "phase", "section", "section_title", "missing")
"""Groups of report.yaml that are asked for by a key of the report, not by a sentence's name."""


class Words(msgspec.Struct, frozen=True):
    """The fixed words of reports in one language: groups by key, and `say`, sentences by name with `{placeholders}`."""

    lang: str
    severity: dict[str, str]
    run_status: dict[str, str]
    advice: dict[str, str]
    confidence: dict[str, str]
    phase: dict[str, str]
    section: dict[str, str]
    section_title: dict[str, str]
    missing: dict[str, str]
    say: dict[str, str]

    def __call__(self, name: str, /, **values: object) -> str:
        """The sentence `name` with its placeholders filled."""
        return _filled(self.say[name], self.lang, values)

    def sentences(self, *texts: str) -> str:
        """Whole sentences one after the other, separated as the language separates them."""
        return self.say["gap"].join(filter(None, texts))

    def how_sure(self, confidence: float) -> str:
        """A confidence (0..1) in words."""
        level = "sure" if confidence >= 0.9 else "likely" if confidence >= 0.7 else "possible" if confidence >= 0.5 else "weak"
        return self.confidence[level]

    def what_missed(self, missing: str) -> str:
        """What a rule would have needed (`metrics.grad_norm`, `text`, ...), in words."""
        kind, _, name = missing.partition(".")
        return self.missing.get(kind, missing).format(name=name)


@cache
def load(lang: str) -> Words:
    """The fixed words of reports in `lang`. Raises DoctorError for an unknown language."""
    if lang not in LANGUAGES:
        raise DoctorError(f"no language {lang!r} (known: {', '.join(LANGUAGES)})")
    groups = {group: {name: text.get(lang) for name, text in texts(f"report.{group}").items()} for group in _GROUPS}
    say = {**texts("report.say"), **texts("page"), **texts("live")}
    return Words(lang=lang, say={name: text.get(lang) for name, text in say.items()}, **groups)


@cache
def texts(place: str) -> dict[str, Text]:
    """The texts of a file (`planner`) or of a group in it (`fleet.state`), by name."""
    file, _, group = place.partition(".")
    data = load_yaml(Path(__file__).parent / f"{file}.yaml")
    return convert(data[group] if group else data, dict[str, Text])


def text(name: str, /, **values: object) -> Text:
    """The text `file.name` with its placeholders filled; a value that is a `Text` itself is taken in each language."""
    place, _, last = name.rpartition(".")
    found = texts(place)[last]
    return Text(**{lang: _filled(found.get(lang), lang, values).rstrip() for lang in LANGUAGES})


def say(name: str, lang: str, /, **values: object) -> str:
    """The text `file.name` in one language."""
    return text(name, **values).get(lang)


def user_language() -> str:
    """The language that the user chose with LFDOCTOR_LANG, English otherwise: for messages that no command line option reaches."""
    lang = os.environ.get("LFDOCTOR_LANG", "en")
    return lang if lang in LANGUAGES else "en"


def _filled(template: str, lang: str, values: dict[str, object]) -> str:
    if not values:
        return template
    known = {name: value.get(lang) if isinstance(value, Text) else value for name, value in values.items()}
    filled = template.format(**known)
    return resolve_josa(filled) if lang == "ko" else filled


def concatenate(parts: list[Text]) -> Text:
    """Several whole sentences as one text."""
    return Text(**{lang: load(lang).sentences(*(part.get(lang) for part in parts)) for lang in LANGUAGES})
