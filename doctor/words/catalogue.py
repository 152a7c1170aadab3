"""The fixed words of reports, one YAML file a language."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from doctor.errors import DoctorError
from doctor.support.cache import load_yaml
from doctor.support.decoding import convert
from doctor.support.languages import LANGUAGES


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every field is a group of words; `say` maps sentences by name, with `{placeholders}`."""

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

    def __call__(self, name: str, **values: object) -> str:
        """The sentence `name` with its placeholders filled."""
        return self.say[name].format(**values)

    def sentences(self, *texts: str) -> str:
        """Whole sentences one after the other, as the language sets them."""
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
    """The words of `lang`. Raises DoctorError for a language that there is not."""
    if lang not in LANGUAGES:
        raise DoctorError(f"no language {lang!r} (known: {', '.join(LANGUAGES)})")
    return convert({"lang": lang, **load_yaml(Path(__file__).parent / f"{lang}.yaml")}, Words)
