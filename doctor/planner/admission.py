"""Whether a remedy may be offered at all for a finding: asked once, before anything else is asked of a remedy.

A remedy that is not admitted is in no patch and under no heading. Everything here follows from the finding and from whose program ran,
not from the configuration; what that decides is planner/situation.py.
"""

from __future__ import annotations

import re

from doctor.config.options import table
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

CERTAIN_ENOUGH = 0.5
"""Below this confidence a cause that was only inferred is no reason to change the training; a symptom that was measured is one."""
_OF_LLAMAFACTORY = re.compile(r"(?i)your LLaMA-Factory|LLaMA-Factory's folder|(?:update|install) LLaMA-Factory|dataset_info\.json")
"""What only somebody who runs LLaMA-Factory has; a sentence for both cases names it in another way."""


def refusal(remedy: Remedy, finding: Finding, *, foreign: bool) -> Text | None:
    """Why the remedy must not be offered; None if it may be.

    `foreign`: the program that failed is known to be another one than LLaMA-Factory.
    """
    if remedy.named is not None and not any(re.search(remedy.named, text) for text in _told(finding)):
        return catalogue.text("planner.not_named")
    if foreign and of_llamafactory(remedy):
        return catalogue.text("planner.other_program")
    asked_for = any(one.name in (op.set or {}) for one in finding.says for op in remedy.patch)
    inferred = "uncaught_exception" in finding.rule.when and not asked_for  # what the message itself asks for is no guess of ours
    if inferred and finding.confidence < CERTAIN_ENOUGH and remedy.effect == "changes_training":
        return catalogue.text("planner.only_a_guess")
    return None


def of_llamafactory(remedy: Remedy) -> bool:
    """Whether the remedy is something to do in LLaMA-Factory's own folder or files.

    Options that only LLaMA-Factory has still say what to change in another program; its versions say nothing there. A command of such a
    remedy is left out by the report.
    """
    return not _changes_an_option(remedy) and _OF_LLAMAFACTORY.search(remedy.text.en) is not None


def _changes_an_option(remedy: Remedy) -> bool:
    return any(key in table() for op in remedy.patch for key in (*(op.set or {}), *(op.scale or {}), *(op.unset or ())))


def _told(finding: Finding) -> list[str]:
    """The evidence and the facts that were taken from it."""
    return [*(piece.text for piece in finding.evidence), *map(str, finding.first.facts.values())]
