"""What rules find: the match of a detector, the finding of a rule, its role among the others."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from doctor.core.events import Where
from doctor.rulebook.model import Rule, Severity
from doctor.support.texts import Text

TRIAL_CONFIDENCE = 0.5
"""A rule whose failure nobody has seen yet is reported as "possible" (under 0.7, words/catalogue.py) at most."""

Role = Literal["root", "consequence", "contributing"]


class Evidence(msgspec.Struct, frozen=True):
    """One quoted piece of proof: the line (or the metric's words) and where it stands."""

    where: Where
    text: str


class Says(msgspec.Struct, frozen=True, kw_only=True):
    """What the message of an exception itself tells the user to do: `quote` is its sentence.

    `option`: `name` is an option of LLaMA-Factory with a legal `value`. `variable`: an environment variable. `command`: a program to run.
    `hint`: anything else. `command` is one line that can be pasted into a shell.
    """

    kind: Literal["option", "variable", "command", "hint"]
    quote: str
    name: str | None = None
    value: Any = None
    command: str | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A cause that a failure may have, which no rule lists: its calibrated `probability` (0..1), the words and places of the log that speak
    for it, its title, and what would confirm it or rule it out.
    """

    cause: str
    probability: float
    reasons: tuple[str, ...]
    title: Text
    check: Text


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """A detector's answer: it happened, here, with these facts.

    `evidence` is not empty, the deciding piece first. `steps` are the first and last training step concerned. `facts` are what
    texts and conditions may use (numbers stay numbers; units stand in the name). `key` tells repeats of one thing (merged over
    ranks and time) from different things found by the same rule; usually empty. `notice` is set by the engine: the match comes from a
    line of level DEBUG, INFO or WARNING, or from a line after the training's end.
    """

    evidence: tuple[Evidence, ...]
    facts: dict[str, Any] = {}
    steps: tuple[int, int] | None = None
    rank: int | None = None
    attempt: int = 0
    time: float | None = None
    key: str = ""
    confidence: float | None = None
    notice: bool = False

    @property
    def where(self) -> Where:
        """The place of the deciding evidence."""
        return self.evidence[0].where


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule's repeated matches, merged. `first` decides place and facts; `evidence` holds pieces of several ranks and times.

    `order` is the place of the first match: text in its own order, then metrics, then config; the same live and offline. `notice` is
    true if all matches are notices, `is_note` if the rule's `note_if` holds. `says` is what the message advises, of a failure that no rule
    lists; `candidates` are its possible causes, most probable first.
    """

    rule: Rule
    first: Match
    count: int
    ranks: tuple[int, ...]
    steps: tuple[int, int] | None
    evidence: tuple[Evidence, ...]
    order: int
    notice: bool = False
    is_note: bool = False
    says: tuple[Says, ...] = ()
    candidates: tuple[Candidate, ...] = ()

    @property
    def severity(self) -> Severity:
        """The rule's, or `note` where its `note_if` holds."""
        return "note" if self.is_note else self.rule.severity

    @property
    def confidence(self) -> float:
        """0..1: the match's own, where the detector gave one, else the rule's; of a rule on trial at most TRIAL_CONFIDENCE."""
        own = self.rule.confidence if self.first.confidence is None else self.first.confidence
        return min(own, TRIAL_CONFIDENCE) if self.rule.status == "trial" else own


class UncheckedRule(msgspec.Struct, frozen=True):
    """A rule that could not be checked, and the first thing its detector would have needed."""

    rule: Rule
    missing: str


class RankedFinding(msgspec.Struct, frozen=True):
    """A finding with its role; `explained_by` is the id of the rule whose finding explains it."""

    finding: Finding
    role: Role
    explained_by: str | None = None
