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
        from rich.padding import Padding
        from rich.text import Text

        from doctor.support.wrapping import Flowing

        out: list[RenderableType] = [Text(self.name, "bold")]
        for title, lines in self.sections():
            out += [Text(f"\n{title}", "bold"), *(Padding(Flowing(line), (0, 0, 0, 2)) for line in lines)]
        return out

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Headings, each with its lines, in reading order; none without lines."""
        parts = {
            "option_use": self.instead(),
            "option_help": self.helps(),
            "option_guide": self.guide(),
        }
        named = [(self.words(name), list(lines)) for name, lines in parts.items()]
        for trainer in ("v0", *trainers_of(self.name)):
            switch = SWITCHES.get(trainer)
            title = self.words("option_with", switch=switch) if switch else self.words("option_versions")
            named.append((title, list(self.changes(trainer))))
        rules = [f"{rule.id}: {with_names(rule.title.get(self.words.lang))}" for rule in self.rules()]
        yield from ((title, lines) for title, lines in (*named, (self.words("option_rules"), rules)) if lines)

    def instead(self) -> Iterator[str]:
        """The name to use where this one is gone or of another program."""
        option, synonym = table().get(self.name), synonyms().get(self.name)
        use = option.use if option is not None and option.use else synonym.use if synonym is not None else None
        if use and use != self.name and not trainers_of(self.name):
            yield self.words("option_use_instead", name=use)

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
        before: list[str] = []
        for period in periods(self.name, trainer):
            yield self.period(period, before)
            before = _choices(period)

    def period(self, period: Period, before: list[str]) -> str:
        """Since which version, with which type, default and values; where values were listed `before`, only those that came or went."""
        version = f"{PRODUCT[period.of]} {knowledge.shown(period.since)}"
        if period.entry is None:
            return self.words("option_gone", version=version)
        parts = [self.words("option_since", version=version, type=period.entry["type"].replace("|", ", "))]
        if not period.entry.get("computed"):
            parts.append(self.words("option_default", value=json.dumps(period.entry["default"], ensure_ascii=False)))
        values = _choices(period)
        new, gone = [one for one in values if one not in before], [one for one in before if one not in values] if values else []
        listed = (("option_also" if before else "option_values", new), ("option_no_longer", gone))
        return self.words("comma").join([*parts, *(self._values(name, some) for name, some in listed if some)])

    def _values(self, name: str, values: list[str]) -> str:
        rest = len(values) - SHOWN_CHOICES
        return self.words(name, values=", ".join(values[:SHOWN_CHOICES])) + (self.words("option_more", count=rest) if rest > 0 else "")

    def rules(self) -> list[Rule]:
        """The rules that ask for the option or change it: errors first."""
        order = ("error", "warning", "note")
        found = [rule for rule in self.book.rules if self.asks(rule) or self.sets(rule)]
        return sorted(found, key=lambda rule: (order.index(rule.severity), rule.id))

    def asks(self, rule: Rule) -> bool:
        """Whether a condition of the rule reads the option."""
        return _holds_path((rule.when, rule.where, rule.note_if), f"config.{self.name}")

    def sets(self, rule: Rule) -> bool:
        """Whether a remedy of the rule itself, not a shared one, sets or removes the option."""
        return any(_holds_path(remedy.patch, self.name) for remedy in rule.remedies if remedy.guide_step is None)


def _choices(period: Period) -> list[str]:
    return list(map(str, (period.entry or {}).get("choices") or ()))


def _holds_path(part: Any, path: str) -> bool:
    """Whether a key of a nested mapping, or an entry of a list in it, is this path."""
    if isinstance(part, Mapping):
        return path in part or any(_holds_path(value, path) for value in part.values())
    if isinstance(part, list | tuple):
        return path in part or any(_holds_path(value, path) for value in part)
    return False
