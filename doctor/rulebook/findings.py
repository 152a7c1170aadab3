"""Results of rules: matches of detectors, findings of rules, and their roles."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Literal

import msgspec

from doctor.core.events import Where
from doctor.rulebook.model import Remedy, Rule, Severity
from doctor.support.texts import Text

TRIAL_CONFIDENCE = 0.5
"""Upper bound for a rule on trial: reported as "possible" at most (below 0.7, words/catalogue.py)."""

Role = Literal["root", "consequence", "contributing"]


class Evidence(msgspec.Struct, frozen=True):
    """One piece of evidence: a line or a metric in words, and its place."""

    where: Where
    text: str


class Says(msgspec.Struct, frozen=True, kw_only=True):
    """What the message of an exception advises; `quote` is its sentence.

    Kinds: `option` (`name` is an option of LLaMA-Factory with a legal `value`), `variable` (of the environment), `command` (a program to
    run), `hint` (anything else). `command` is one line for a shell.
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


class SampleRow(msgspec.Struct, frozen=True):
    """One sample of a data set: `line` counts from 1; in a file without lines it is 0 and `row` counts from 1.

    `tokens`: before truncation, None where that is not known; `trained`: tokens that the loss is computed on.
    """

    file: str
    line: int
    row: int
    step: int
    rank: int
    tokens: int | None = None
    trained: int | None = None


class Samples(msgspec.Struct, frozen=True):
    """The samples that the run read in `steps` (first and last) on `world` processes, the likeliest first; `total`: how many there are."""

    steps: tuple[int, int]
    world: int
    total: int
    rows: tuple[SampleRow, ...]


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector found.

    - `evidence`: not empty, the deciding piece first.
    - `facts`: values for texts and conditions; numbers stay numbers, units are part of the name.
    - `steps`: the first and the last affected training step.
    - `key`: matches of a rule with equal keys are merged over ranks and time; usually empty.
    - `notice`: set by the engine for a line of level DEBUG, INFO or WARNING, or after the end of the training.
    - `closes`: how an episode ended; in a report it replaces the earlier match of the same key, attempt and first step.
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
    closes: bool = False

    @property
    def where(self) -> Where:
        """The place of the deciding evidence."""
        return self.evidence[0].where


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The merged matches of one rule.

    - `first`: the match that gives place and facts; `evidence`: pieces of several ranks and times.
    - `order`: position of the first match: text in file order, then metrics, then config; the same live and post-mortem.
    - `notice`: whether all matches are notices; `is_note`: whether the rule's `note_if` holds.
    - `says`: what the message advises, for a failure that no rule lists; `candidates`: its possible causes, most probable first.
    - `samples`: those of the batch that failed, where the order of the data is known.
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
    samples: Samples | None = None

    @property
    def severity(self) -> Severity:
        """The rule's, or `note` where its `note_if` holds."""
        return "note" if self.is_note else self.rule.severity

    @property
    def confidence(self) -> float:
        """0..1: the match's, else the rule's; at most TRIAL_CONFIDENCE for a rule on trial."""
        confidence = self.rule.confidence if self.first.confidence is None else self.first.confidence
        return min(confidence, TRIAL_CONFIDENCE) if self.rule.status == "trial" else confidence

    def led_by(self, *remedies: Remedy, without: Container[str] = ()) -> Finding:
        """The finding with these remedies before the rule's own, of which those with an id in `without` are left out."""
        rest = [remedy for remedy in self.rule.remedies if remedy.id not in without]
        return msgspec.structs.replace(self, rule=msgspec.structs.replace(self.rule, remedies=[*remedies, *rest]))


class UncheckedRule(msgspec.Struct, frozen=True):
    """A rule that could not be checked, and the first input that is missing for it."""

    rule: Rule
    missing: str


class RankedFinding(msgspec.Struct, frozen=True):
    """A finding with its role; `explained_by` is the id of the rule whose finding explains it."""

    finding: Finding
    role: Role
    explained_by: str | None = None


def root_of(ranked: Sequence[RankedFinding]) -> Finding | None:
    """The finding that the report is about: the first, if it is a root."""
    return ranked[0].finding if ranked and ranked[0].role == "root" else None


def with_root(ranked: Sequence[RankedFinding], root: Finding) -> list[RankedFinding]:
    """The findings with another one in the place of the first."""
    return [msgspec.structs.replace(ranked[0], finding=root), *ranked[1:]]
