"""Rules as frozen records: what a match means, which remedies help, and the rule's own examples."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import msgspec

from doctor.support.texts import Text

Severity = Literal["error", "warning", "note"]
Section = Literal["memory", "instability", "speed"]
"""A chapter of the guide's troubleshooting."""
Effect = Literal["neutral", "changes_training", "manual"]
FIRST = 0.1
"""A price below 1: such a remedy comes before what a patch changes."""
Symptom = Literal[
    "out_of_memory", "loss_spike", "divergence", "nonfinite", "zero_loss", "plateau", "overfitting", "gradient",
    "slow", "stall", "killed", "crash", "config", "data", "environment",
]  # fmt: skip


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Multiply a number by `by` (0.5, or a `{fact.name}`) within `at_least` and `at_most`; integers stay integers (rounded down)."""

    by: float | str
    at_least: float | None = None
    at_most: float | None = None


class Op(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One patch operation: exactly one of `set`, `unset`, `scale`, applied only if `only_if` holds.

    Keys and values may contain the placeholders `{fact.name}`, `{config.name}` and `{plan.output_dir}`; a text that is a single
    placeholder takes the value with its type.
    """

    set: dict[str, Any] | None = None
    unset: list[str] | None = None
    scale: dict[str, Scale] | None = None
    target: Literal["config", "env", "deepspeed", "command"] = "config"
    only_if: Any = {}


class Remedy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One remedy. `source` is `guide/<memory|instability|speed>/<number>` for a step of the guide, else `beyond`.

    - `only_if`: where it can help; `done_if`: holds after it was applied; `harmful_if`: where it would make things worse. `reasons` explain
      these to the user (keys not_applicable, done, harmful).
    - `excluded`: why it never helps against the rule's cause.
    - `requires`: pip packages that it needs.
    - `named`: a regular expression; without a match in the finding's evidence the remedy is not offered (it is about timeouts, and nothing
      timed out).
    - `elsewhere`: what to do instead where another program than LLaMA-Factory ran; told beside the text where nothing names the program.
    - `check`: it changes nothing and only shows more; it stands behind what cures.
    - `price`: cost of applying it once in the search for the cheapest sufficient set; by default from the effect and the packages
      (doctor/planner/search.py).
    """

    id: str
    text: Text
    source: str = "beyond"
    excluded: Text | None = None
    only_if: Any = {}
    done_if: Any = None
    harmful_if: Any = None
    patch: list[Op] = []
    keep: list[Literal["effective_batch_size", "lora_scaling"]] = []
    effect: Effect = "neutral"
    cost: Text | None = None
    command: str | None = None
    reasons: dict[Literal["done", "not_applicable", "harmful"], Text] = {}
    requires: list[str] = []
    named: str | None = None
    elsewhere: Text | None = None
    check: bool = False
    price: float | None = None
    references: list[str] = []

    @property
    def guide_step(self) -> tuple[Section, int] | None:
        """(section, number) in the guide's troubleshooting chapter; None for a remedy beyond the guide."""
        found = re.fullmatch(r"guide/(memory|instability|speed)/(\d+)", self.source)
        return (cast("Section", found[1]), int(found[2])) if found else None


class Body(Text, frozen=True, forbid_unknown_fields=True):
    """One paragraph of a rule. The report shows the first paragraph whose `where` holds and whose placeholders are all known.

    `where` is a condition on the config and on facts of the run and the match. A paragraph with neither condition nor placeholder comes
    last.
    """

    where: Any = {}


class LineExample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line, traceback, series or config that a rule must (or must not) match.

    Exactly one of:

    - `line`: a console line.
    - `text`: several lines, read as a console.
    - `loss` or `series`: values of metrics per step, by name (loss, seconds, rank1.loss, samples.gpu.0.used_gib).
    - `config`: for rules on the config.

    With a `line`, `series` are the steps before it; with any other form, `config` is the run's config. `facts`: facts that the match must
    have. `given`: facts of the run that are set from the start.
    """

    line: str | None = None
    text: str | None = None
    series: dict[str, list[float | str | None]] | None = None
    config: dict[str, Any] | None = None
    facts: dict[str, Any] = {}
    given: dict[str, Any] = {}


class FixExample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For this config (and these facts of the match) the first applicable remedy changes exactly this (null: key removed)."""

    config: dict[str, Any]
    change: dict[str, Any]
    facts: dict[str, Any] = {}
    remedy: str | None = None


class Examples(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rule's own tests."""

    match: list[LineExample] = []
    no_match: list[LineExample] = []
    fix: list[FixExample] = []


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file under rules/<family>/ (docs/writing-a-rule.md).

    - `when`: the detector and its parameters, by default those of the first rule in `refines`.
    - `where`: a condition on the config and on facts of the run and the match.
    - `proves`: options that a match proves to be set (`fp16: true`), for its remedies where no configuration was read.
    - `note_if`: if it holds for all matches when the findings are asked for, the finding is only a note.
    - `fallback`: reported only for tracebacks that no other rule reports.
    - `witness`: where this failure was really seen: `lab: fixtures/NAME`, `parser: MESSAGE` (LLaMA-Factory's own check),
      `source: PACKAGE VERSION FILE`, `thread: OWNER/REPO#NUMBER`. A rule without one has `status: trial`.
    """

    id: str
    cause: str
    symptom: Symptom
    severity: Severity
    when: dict[str, dict[str, Any]]
    title: Text
    body: list[Body]
    where: Any = {}
    proves: dict[str, Any] = {}
    note_if: Any = None
    witness: list[str] = []
    status: Literal["stable", "trial"] = "stable"
    confidence: float = 0.9
    fallback: bool = False
    refines: list[str] = []
    explained_by: list[str] = []
    remedies: list[Remedy] = []
    references: list[str] = []
    examples: Examples = Examples()

    @property
    def family(self) -> str:
        """The rule's folder."""
        return self.id.partition("/")[0]

    @property
    def detector(self) -> str:
        """The detector's name, the only key of `when:`."""
        return next(iter(self.when))

    @property
    def params(self) -> dict[str, Any]:
        """The detector's parameters."""
        return self.when[self.detector] or {}


class GuideStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the guide's 14 troubleshooting steps: its place and text, the matching remedy, and a correction if it is out of date."""

    section: Section
    step: int
    guide_ko: str
    remedy: Remedy
    correction: Text | None = None


class Guide(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """rules/guide.yaml."""

    title: Text
    sections: dict[str, Text]
    steps: list[GuideStep]


class Rulebook(msgspec.Struct, frozen=True):
    """All rules, and the guide whose steps they name."""

    rules: tuple[Rule, ...]
    guide: Guide | None = None

    def __getitem__(self, rule_id: str) -> Rule:
        for rule in self.rules:
            if rule.id == rule_id:
                return rule
        raise KeyError(rule_id)
