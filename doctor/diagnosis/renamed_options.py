"""Options that the parser refused: what LLaMA-Factory calls them, and which value they get there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from doctor.config.option_names import synonyms
from doctor.core.run import Run
from doctor.readers.values import option_value
from doctor.rulebook.findings import Finding, RankedFinding, root_of, with_root
from doctor.rulebook.model import FIRST, Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

_RULES = ("config/removed-key-error", "config/unknown-key-error", "config/unused-arguments-error")
_LIST = re.compile(r"are not used by the HfArgumentParser: \[(?P<items>[^\]]*)")
_ITEM = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_ARGUMENT = re.compile(r"got an unexpected keyword argument '(?P<name>\w+)'")
_MOST = 4
"""Names that one step tells."""


def with_new_names(ranked: Sequence[RankedFinding], run: Run) -> list[RankedFinding]:
    """The findings; the first, if the parser refused options whose present names are known, with those names as its first remedy."""
    root = root_of(ranked)
    if root is None or root.rule.id not in _RULES:
        return list(ranked)
    told = [text for name, value in refused(root, run.config) for text in _new_name(name, value, root)][:_MOST]
    if not told:
        return list(ranked)
    names = Text(*("; ".join(getattr(one, lang) for one in told) for lang in ("en", "ko", "zh")))
    remedy = Remedy(id="present-names", text=catalogue.text("planner.present_names", names=names), effect="manual", price=FIRST)
    return with_root(ranked, root.led_by(remedy, without=("offending-key",)))


def refused(finding: Finding, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The refused options with their values, as the message lists them; None for a value that neither it nor the config has."""
    for piece in finding.evidence:
        if (found := _LIST.search(piece.text)) is not None:
            items = [one or other for one, other in _ITEM.findall(found["items"])]
            for at, item in enumerate(items):
                following = items[at + 1] if item.startswith("-") and at + 1 < len(items) else ""
                value = option_value(following) if following and not following.startswith("--") else config.get(item.lstrip("-"))
                if re.fullmatch(r"-{0,2}[a-z]\w*", item) and (item.startswith("-") or not items[0].startswith("-")):
                    yield item.lstrip("-"), value
            return
        if (argument := _ARGUMENT.search(piece.text)) is not None:
            yield argument["name"], config.get(argument["name"])
            return


def _new_name(name: str, value: Any, finding: Finding) -> Iterator[Text]:
    """The present name of an option with its value there, unless a remedy of the rule writes it itself."""
    synonym = synonyms().get(name)
    if synonym is None or any(name in (op.unset or ()) for one in finding.rule.remedies for op in one.patch):
        return
    if synonym.use is None:
        yield catalogue.text("planner.present_note", name=name, note=synonym.note)
    elif synonym.values and value is not None:
        try:
            yield catalogue.text("planner.present_value", name=name, use=synonym.use, value=synonym.translate(value))
        except KeyError:
            yield catalogue.text("planner.present_name", name=name, use=synonym.use)
    else:
        yield catalogue.text("planner.present_name", name=name, use=synonym.use)
