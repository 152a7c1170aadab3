"""Of a text whose output says no cause, or that holds none: what a person's words in it may mean, and which output would decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from doctor.core.events import Where
from doctor.core.run import Run
from doctor.diagnosis.unlisted.answer import RULE
from doctor.diagnosis.unlisted.described import LONGEST, Described, read
from doctor.diagnosis.unlisted.features import config_features
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.noted_cause import with_noted_cause
from doctor.report.model import Status
from doctor.report.status import ENDS_A_RUN
from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.exceptions import POSSIBLE, UNKNOWN
from doctor.rulebook.findings import Candidate, Evidence, Finding, Match, RankedFinding
from doctor.rulebook.model import Body, Remedy, Rule
from doctor.support.files import end_of_file
from doctor.words import catalogue

NAME = "described"
"""The last part of the rule's id under which a cause by description is reported; the first is its family."""
_BYTES = 16 << 10
"""A file larger than this is no description."""
_CHANCE = 0.25
"""Probability told for each further cause (they are ordered, not measured one by one)."""
_CONTEXT = ("model_name_or_path", "cutoff_len", "fp16", "finetuning_type")
"""Options that descriptions are read with, beside those of an exception."""


def with_description(
    ranked: Sequence[RankedFinding], status: Status, run: Run, seen: LastEvents, consoles: Sequence[str]
) -> list[RankedFinding]:
    """The findings, and first among them what a person's words say where nothing that a program wrote says more.

    Findings on the config stay behind it: they are no reason for what the person saw.
    """
    ranked = list(ranked)
    if status not in ("unknown", "failed") or any(_tells_more(one, consoles) for one in ranked):
        return ranked
    broken = [crash.phase for chain in seen.tracebacks for crash in chain if not crash.exception and crash.phase is not None]
    for file in consoles:
        told = read(_lines(file), _config(run), broken)
        if told is not None:
            before = [one.finding for one in ranked if one.finding.rule.id == RULE]
            rest = [RankedFinding(one.finding, "contributing") for one in ranked if one.finding.rule.id != RULE]
            return [RankedFinding(_finding(told, file, before), "root"), *rest]
    return ranked


def _tells_more(ranked: RankedFinding, consoles: Sequence[str]) -> bool:
    """Whether a finding is told by what a program wrote: a rule's line, an exception.

    A line that merely says "error", and a traceback that breaks off, say no more than a person's words.
    """
    finding = ranked.finding
    if finding.rule.id == RULE:
        return any(name in finding.first.facts for name in ("exception", "signal", "code"))
    return finding.severity != "note" and (finding.severity == "error" or finding.first.where.file in consoles)


def _lines(file: str) -> list[str]:
    try:
        if Path(file).stat().st_size > _BYTES:
            return []
        text = end_of_file(Path(file), _BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    lines = text.splitlines()
    return lines if len(lines) <= 2 * LONGEST else []


def _config(run: Run) -> dict[str, str]:
    more = {name: str(run.config[name]) for name in _CONTEXT if run.config.get(name) not in (None, False, "")}
    return {**more, **config_features(run)}


def _finding(told: Described, file: str, before: Sequence[Finding]) -> Finding:
    """The likeliest cause with the others as candidates; of words that fit several, the candidates alone. `before`: what it replaces."""
    words = ", ".join(f'"{word}"' for word in told.found)
    evidence = (Evidence(Where(file, told.line + 1), told.text), *(piece for one in before for piece in one.evidence))
    lead = catalogue.text("report.say.described_alone" if told.alone else "report.say.described_beside")
    text = catalogue.text("report.say.described_open", lead=lead, words="{words}")
    rule = Rule(
        id=RULE,
        cause=UNKNOWN,
        symptom=told.reading.symptom,
        severity="error" if told.reading.symptom in ENDS_A_RUN else "warning",
        when={"uncaught_exception": {}},
        title=catalogue.text("report.say.described_title"),
        body=[Body(text.en, text.ko, text.zh)],
        confidence=_CHANCE,
        remedies=[Remedy(id="give-output", text=catalogue.text("report.say.described_give"), effect="manual", check=True)],
        fallback=True,
    )
    finding = Finding(
        rule=rule, first=Match(evidence=evidence, facts={"words": words}), count=1, ranks=(), steps=None, evidence=evidence, order=0
    )
    if told.reading.cause is not None:
        finding = with_noted_cause(
            finding, told.reading.cause, NAME, catalogue.text("report.say.described", lead=lead, words="{words}"), POSSIBLE
        )
    return msgspec.structs.replace(finding, candidates=tuple(_candidate(cause, told.found) for cause in told.reading.others))


def _candidate(cause: str, words: tuple[str, ...]) -> Candidate:
    note = cause_notes()[cause]
    return Candidate(cause=cause, probability=_CHANCE, reasons=words, title=note.title, check=note.check)
