"""Writes docs/rules/: one page a rule and an index, from the rule files (`make docs`); `--check` says whether they are current."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from generated import write_or_check

from doctor.rulebook import loader
from doctor.rulebook.model import Remedy, Rule, Rulebook
from doctor.rulebook.name_lists import collapse
from doctor.support.texts import Text

FOLDER = Path(__file__).parent / "rules"
FAMILIES = ("memory", "stability", "speed", "distributed", "device", "precision", "config", "data", "environment", "export")
"""The folders of `rules/` in the order of the index."""


def pages(book: Rulebook) -> dict[Path, str]:
    """Every page's place and text."""
    out = {FOLDER / f"{rule.id}.md": page(rule) for rule in book.rules}
    out[FOLDER / "index.md"] = index(book)
    return out


def index(book: Rulebook) -> str:
    """All rules by family."""
    lines = ["# Rules", "", f"{len(book.rules)} rules, generated from `rules/` by `make docs`."]
    ordered = sorted(book.rules, key=lambda rule: (FAMILIES.index(rule.family), rule.id))
    for family, rules in groupby(ordered, key=lambda rule: rule.family):
        lines += ["", f"## {family}", "", "| rule | cause | what it means |", "|---|---|---|"]
        lines += [f"| [{rule.id.partition('/')[2]}]({rule.id}.md) | {rule.cause} | {_open(rule.title.en)} |" for rule in rules]
    return "\n".join(lines) + "\n"


def _seen(rule: Rule) -> dict[str, Any]:
    """What a rule asks for, without what it leaves out."""
    return {
        "when": collapse(rule.when),
        **({"where": rule.where} if rule.where else {}),
        **({"note_if": rule.note_if} if rule.note_if else {}),
    }


def page(rule: Rule) -> str:
    """One rule's page: what it means in English and Korean, how it is seen, what helps, its own examples."""
    facts = f"`{rule.id}` · cause `{rule.cause}` · {rule.severity} · confidence {rule.confidence:g}"
    lines = [f"# {_open(rule.title.en)}", "", f"*{_open(rule.title.ko)}*", "", facts, "", "## What it means", ""]
    lines += [f"- {_open(text.en)}\n- {_open(text.ko)}" for text in rule.body]
    lines += ["", "## How it is seen", "", *_yaml(_seen(rule))]
    if rule.refines:
        lines += ["", "A more specific form of " + ", ".join(f"[{one}]({_link(rule, one)})" for one in rule.refines) + "."]
    if rule.explained_by:
        lines += ["", "A consequence where one of these was found: " + ", ".join(f"`{one}`" for one in rule.explained_by) + "."]
    if rule.remedies:
        lines += ["", "## What helps, in order", ""]
        lines += [line for number, remedy in enumerate(rule.remedies, 1) for line in _remedy(number, remedy)]
    lines += _examples("Recognised", rule, "match") + _examples("Not taken for it", rule, "no_match")
    references = list(dict.fromkeys([*rule.references, *(link for remedy in rule.remedies for link in remedy.references)]))
    if references:
        lines += ["", "## References", "", *(f"- {link}" for link in references)]
    return "\n".join(lines) + "\n"


def _remedy(number: int, remedy: Remedy) -> list[str]:
    step = remedy.guide_step
    source = f"the guide, {step[0]} {step[1]}" if step else "beyond the guide"
    lines = [
        f"{number}. **{_open(remedy.text.en)}** ({source}, {remedy.effect.replace('_', ' ')})",
        f"   {_open(remedy.text.ko)}",
    ]
    lines += [f"   {label}: {_both(text)}" for label, text in (("Cost", remedy.cost), ("Never", remedy.reasons.get("harmful"))) if text]
    return [*lines, *([f"   Run: `{_open(remedy.command)}`"] if remedy.command else [])]


def _examples(title: str, rule: Rule, kind: str) -> list[str]:
    lines = ["", f"## {title}"]
    for example in getattr(rule.examples, kind):
        shown = example.line or (example.text or "").strip("\n")
        parts = [shown] if shown else []
        parts += [
            f"{name}: {value}"
            for name, value in (("series", example.series), ("config", example.config), ("given", example.given))
            if value
        ]
        lines += ["", "~~~text", *parts, "~~~"]
    return lines


def _yaml(content: object) -> list[str]:
    return ["```yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120).rstrip(), "```"]


def _both(text: Text) -> str:
    return f"{_open(text.en)} / {_open(text.ko)}"


def _open(template: str) -> str:
    """Placeholders as <names>."""
    return re.sub(r"\{([\w./]+)(?::[^{}]*)?\}", r"‹\1›", template)


def _link(rule: Rule, other: str) -> str:
    family, _, name = other.partition("/")
    return f"{name}.md" if family == rule.family else f"../{other}.md"


if __name__ == "__main__":
    sys.exit(write_or_check(FOLDER, pages(loader.load())))
