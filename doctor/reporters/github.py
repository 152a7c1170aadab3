"""Workflow commands of GitHub Actions: each finding is an annotation at its line, `::error file=train.yaml,line=30,title=...::...`."""

from __future__ import annotations

from pathlib import PurePath

from doctor.report.model import FindingView, Report
from doctor.reporters import base, concise
from doctor.reporters.base import PLAIN, Screen
from doctor.words import catalogue
from doctor.words.catalogue import Words

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}
"""Severity -> the command (docs.github.com, "Workflow commands for GitHub Actions")."""
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}
"""Characters that the runner decodes in a message and in a property (actions/toolkit, packages/core/src/command.ts)."""


def render(report: Report, screen: Screen = PLAIN) -> str:  # noqa: ARG001 (the shape of every reporter)
    """One annotation a finding, consequences left out; a healthy run or config has none, one that could not be judged a warning."""
    words = catalogue.load(report.lang)
    roots, _, others, notes = base.parts(report)
    lines = [_annotation(report, finding, words) for finding in (*roots, *others, *notes)]
    if not lines and report.verdict in ("failed", "undecided"):
        _, title, sentence = base.verdict(report, words)
        lines = [f"::warning file={_escaped(report.run.path, _PROPERTY)},title={_escaped(title, _PROPERTY)}::{_escaped(sentence, _DATA)}"]
    return "".join(f"{line}\n" for line in lines)


def _annotation(report: Report, finding: FindingView, words: Words) -> str:
    proof = finding.evidence[0] if finding.evidence else None
    file = PurePath(proof.source if proof else report.run.path).as_posix()
    place = f"file={_escaped(file, _PROPERTY)}" + (f",line={proof.line}" if proof and proof.line else "")
    values = concise.values(report, finding, words)
    text = "\n".join(filter(None, (finding.text or finding.title, values, finding.rule)))
    return f"::{_LEVELS[finding.severity]} {place},title={_escaped(finding.title, _PROPERTY)}::{_escaped(text, _DATA)}"


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(sign, sign) for sign in text)
