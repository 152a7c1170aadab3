"""lfdoctor explain: one rule as a page (meaning, detection, remedies), or one option of LLaMA-Factory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.common import Lang, screen, write_out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from doctor.rulebook.model import LineExample, Remedy, Rule
    from doctor.words.catalogue import Words


def _names(incomplete: str) -> list[str]:
    """The rules and options that begin so, for a shell's completion."""
    from doctor.cli.rules import load_rules
    from doctor.config.option_facts import names

    known = [*(rule.id for rule in load_rules()[0].rules), *names()]
    return sorted(name for name in known if name.startswith(incomplete))


def explain(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A rule (memory/gpu-oom), its name, a cause, or an option (lora_rank).", autocompletion=_names),
    ],
    lang: Lang = "en",
) -> None:
    """Show what a rule means, how it is detected and what helps; or what an option does, in which versions, and what the guide advises."""
    from doctor.cli.explain_option import OptionPage, is_option
    from doctor.cli.rules import load_rules
    from doctor.config.option_facts import names
    from doctor.reporters.terminal.canvas import to_text
    from doctor.rulebook.lookup import find
    from doctor.words import catalogue

    shown = screen()
    said = catalogue.load(lang)
    if is_option(name):
        write_out(to_text(OptionPage(name, load_rules()[0], said).blocks(), shown), encoding=None)
        return
    pages = [to_text(Explanation(rule, said).blocks(), shown) for rule in find(load_rules()[0], name, also=names())]
    write_out("\n".join(pages), encoding=None)


class Explanation:
    """A rule's page in one language."""

    def __init__(self, rule: Rule, words: Words) -> None:
        self.rule = rule
        self.words = words

    def blocks(self) -> list[RenderableType]:
        """All parts in reading order."""
        from rich.text import Text

        rule, words = self.rule, self.words
        trial = [words("trial")] if rule.status == "trial" else []
        facts = [rule.id, words.severity[rule.severity], words.how_sure(rule.confidence), rule.cause, *trial]
        out: list[RenderableType] = [
            Text(self.open(rule.title.get(words.lang)), "bold"),
            Text("  " + words("comma").join(facts), "dim"),
        ]
        out += self.section("means", [f"- {self.open(body.get(words.lang))}" for body in rule.body])
        out += self.section("when_seen", self.seen())
        out += self.section("refines", [", ".join(rule.refines)] if rule.refines else [])
        out += self.section("explains", [", ".join(rule.explained_by)] if rule.explained_by else [])
        if rule.remedies:
            out += [*self.section("helps", []), self.remedies()]
        for kind, examples in (("matches", rule.examples.match), ("matches_not", rule.examples.no_match)):
            out += self.section(kind, [self.example(example) for example in examples])
        references = [*rule.references, *(link for remedy in rule.remedies for link in remedy.references)]
        return out + self.section("references", list(dict.fromkeys(references)))

    def open(self, template: str) -> str:
        """A text with its placeholders shown as <names>."""
        from doctor.support.texts import with_names

        return with_names(template, self.words.phase)

    def section(self, name: str, lines: list[str]) -> list[RenderableType]:
        from rich.padding import Padding
        from rich.text import Text

        from doctor.support.wrapping import Flowing

        if not lines and name != "helps":
            return []
        return [Text(f"\n{self.words(name)}", "bold"), *(Padding(Flowing(line), (0, 0, 0, 2)) for line in lines)]

    def seen(self) -> list[str]:
        """The detector's description, its parameters without the prefilter literals, and the rule's conditions."""
        import yaml

        from doctor.detectors.registry import DETECTORS

        detector = DETECTORS.get(self.rule.detector)
        module = sys.modules[detector.__module__] if detector else None
        first = (getattr(module, "__doc__", None) or "").strip().split("\n")[0].replace("`", "")
        params = {name: value for name, value in self.rule.params.items() if name != "contains"}
        out = [first] if first else []
        for title, content in (
            (self.rule.detector, params),
            (self.words("only_where"), self.rule.where),
            (self.words("note_if"), self.rule.note_if),
        ):
            if content:
                text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=10_000).rstrip()
                out.append(f"{title}:\n" + "\n".join(f"  {line}" for line in text.split("\n")))
        return out

    def remedies(self) -> RenderableType:
        from rich.padding import Padding
        from rich.table import Table

        from doctor.support.wrapping import Flowing

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for remedy in self.rule.remedies:
            text = Flowing(self.open(remedy.text.get(self.words.lang)))
            for line in self.about(remedy):
                text.append(f"\n{line}", "dim")
            place = remedy.guide_step
            table.add_row(f"{self.words.section[place[0]]} {place[1]}" if place else self.words("beyond"), text)
        return Padding(table, (0, 0, 0, 2))

    def about(self, remedy: Remedy) -> list[str]:
        """A remedy's cost, command and effect on the training."""
        cost = [self.open(remedy.cost.get(self.words.lang))] if remedy.cost else []
        command = [self.words("command", command=self.open(remedy.command))] if remedy.command else []
        return [*cost, *command, *([self.words("effect_changes")] if remedy.effect == "changes_training" else [])]

    def example(self, example: LineExample) -> str:
        parts: list[Any] = [example.line or (example.text or "").strip("\n"), example.series or "", example.config or ""]
        return "\n".join(str(part) for part in parts if part)
