"""Writes a report's texts in all languages at once: one goes into the report, the others into its `translations`."""

from __future__ import annotations

from collections.abc import Callable

from doctor.support.languages import LANGUAGES
from doctor.support.texts import Text
from doctor.words import catalogue
from doctor.words.catalogue import Words


class TextWriter:
    """`write` and `put` return a text in `lang` and keep its other languages by place, if they read differently.

    A place is a path in the report: `findings.0.title`. Raises DoctorError for an unknown language.
    """

    def __init__(self, lang: str) -> None:
        self.words = catalogue.load(lang)
        self.others = {other: catalogue.load(other) for other in sorted(LANGUAGES) if other != lang}
        self._translations: dict[str, dict[str, str]] = {other: {} for other in self.others}

    def write(self, place: str, text_in: Callable[[Words], str]) -> str:
        """`text_in` gives the text in the language of the words that it is given."""
        text = text_in(self.words)
        for lang, words in self.others.items():
            translated = text_in(words)
            if translated != text:
                self._translations[lang][place] = translated
        return text

    def put(self, place: str, text: Text | None) -> str:
        """A text as it is; nothing is written as an empty text."""
        return self.write(place, lambda words: text.get(words.lang)) if text else ""

    def translations(self) -> dict[str, dict[str, str]]:
        """The texts in the other languages, by language and place, sorted."""
        return {lang: dict(sorted(texts.items())) for lang, texts in self._translations.items()}
