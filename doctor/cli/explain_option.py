"""The page of one option for `lfdoctor explain OPTION`: help, the guide's word, values by version, the rules that speak of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from doctor.config import knowledge
from doctor.config.option_facts import SWITCHES, Period, guide_sections, guide_words, help_of, names, periods, trainers_of
from doctor.config.option_names import synonyms
from doctor.config.options import table
from doctor.support.texts import with_names

if TYPE_CHECKING:
    from rich.console import RenderableType

    from doctor.rulebook.model import Rule, Rulebook
    from doctor.words.catalogue import Words

SHOWN_CHOICES = 30
"""More values of an option are counted, not listed."""

PRODUCT = {"llamafactory": "LLaMA-Factory", "transformers": "transformers"}


def is_option(name: str) -> bool:
    """Whether LLaMA-Factory, in any version or trainer, or the guide has an option of this name."""
    return name in names() or name in synonyms()


class OptionPage:
    """An option's page in one language."""

    def __init__(self, name: str, book: Rulebook, words: Words) -> None:
        self.name, self.book, self.words = name, book, words

    def blocks(self) -> list[RenderableType]:
        """All parts in reading order."""
        from rich.text import Text

        out: list[RenderableType] = [Text(self.name, "bold")]
        option = table().get(self.name)
        synonym = synonyms().get(self.name)
        use = option.use if option is not None and option.use else synonym.use if synonym is not None else None
        if use and use != self.name and not trainers_of(self.name):
            out += self.section("option_use", [self.words("option_use_instead", name=use)])
        out += self.section("option_help", list(self.helps()))
        out += self.section("option_guide", list(self.guide()))
        for trainer in ("v0", *trainers_of(self.name)):
            changes = list(self.changes(trainer))
            if changes:
                switch = SWITCHES.get(trainer)
                title = self.words("option_with", switch=switch) if switch else self.words("option_versions")
                out += self._titled(title, changes)
        out += self.section("option_rules", list(self.rules()))
        return out

    def section(self, name: str, lines: list[str]) -> list[RenderableType]:
        """A heading and its lines; nothing without lines."""
        return self._titled(self.words(name), lines) if lines else []

    def _titled(self, title: str, lines: list[str]) -> list[RenderableType]:
        from rich.padding import Padding
        from rich.text import Text

        from doctor.support.wrapping import Flowing

        return [Text(f"\n{title}", "bold"), *(Padding(Flowing(line), (0, 0, 0, 2)) for line in lines)]

    def helps(self) -> Iterator[str]:
        """The help texts of LLaMA-Factory and transformers, in English as they are."""
        yield from dict.fromkeys(text for trainer in ("v0", *trainers_of(self.name)) if (text := help_of(self.name, trainer)))

    def guide(self) -> Iterator[str]:
        """The guide's section and word, and what has changed since."""
        word = guide_words().get(self.name)
        if word is not None:
            lang = self.words.lang
            yield f"[{guide_sections()[word.section].get(lang)}] {word.advice.get(lang)}"
            if word.today is not None:
                yield self.words("option_today", text=word.today.get(lang))

    def changes(self, trainer: str) -> Iterator[str]:
        """One line for each period of versions, oldest first."""
        for period in periods(self.name, trainer):
            yield self.period(period)

    def period(self, period: Period) -> str:
        """Since which version, with which type, default and values."""
        version = f"{PRODUCT[period.of]} {knowledge.shown(period.since)}"
        if period.entry is None:
            return self.words("option_gone", version=version)
        parts = [self.words("option_since", version=version, type=period.entry["type"].replace("|", ", "))]
        if not period.entry.get("computed"):
            parts.append(self.words("option_default", value=json.dumps(period.entry["default"], ensure_ascii=False)))
        choices = list(map(str, period.entry.get("choices") or ()))
        if choices:
            rest = len(choices) - SHOWN_CHOICES
            more = self.words("option_more", count=rest) if rest > 0 else ""
            parts.append(self.words("option_values", values=", ".join(choices[:SHOWN_CHOICES])) + more)
        return self.words("comma").join(parts)

    def rules(self) -> Iterator[str]:
        """The rules that ask for the option or change it: errors first."""
        order = ("error", "warning", "note")
        found = [rule for rule in self.book.rules if self.asks(rule) or self.sets(rule)]
        for rule in sorted(found, key=lambda rule: (order.index(rule.severity), rule.id)):
            yield f"{rule.id}: {with_names(rule.title.get(self.words.lang))}"

    def asks(self, rule: Rule) -> bool:
        """Whether a condition of the rule reads the option."""
        return _holds_path((rule.when, rule.where, rule.note_if), f"config.{self.name}")

    def sets(self, rule: Rule) -> bool:
        """Whether a remedy of the rule itself, not a shared one, sets or removes the option."""
        return any(_holds_path(remedy.patch, self.name) for remedy in rule.remedies if remedy.guide_step is None)


def _holds_path(part: Any, path: str) -> bool:
    """Whether a key of a nested mapping, or an entry of a list in it, is this path."""
    if isinstance(part, Mapping):
        return path in part or any(_holds_path(value, path) for value in part.values())
    if isinstance(part, list | tuple):
        return path in part or any(_holds_path(value, path) for value in part)
    return False
