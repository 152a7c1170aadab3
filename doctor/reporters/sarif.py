"""SARIF 2.1.0 for code-scanning pages and editors; each finding points to the line of the config or log that proves it."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from doctor.privacy.secrets import MASK
from doctor.report.model import EvidenceView, FindingView, Report
from doctor.reporters import base
from doctor.reporters.base import PLAIN, Screen
from doctor.words import catalogue

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render(report: Report, screen: Screen = PLAIN) -> str:  # noqa: ARG001 (the shape of every reporter)
    """One SARIF run with one result per finding, roots first."""
    rules = list(dict.fromkeys(finding.rule for finding in report.findings))
    run = {
        "tool": {"driver": {"name": report.tool.name, "semanticVersion": report.tool.version, "rules": _rules(report, rules)}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _not_checked(report)}],
        "results": [_result(finding, rules.index(finding.rule), _fixes(report, finding)) for finding in report.findings],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, ensure_ascii=False, indent=2) + "\n"


def _not_checked(report: Report) -> list[dict[str, Any]]:
    """The rules that were not checked, one notification per missing input."""
    words = catalogue.load(report.lang)
    where = {"physicalLocation": {"artifactLocation": {"uri": _uri(report.run.path)}}}
    return [
        {"level": "note", "message": {"text": f"{words('blind')}: {line}"}, "locations": [where]}
        for line in base.blind_lines(report, words)
    ]


def _rules(report: Report, rules: list[str]) -> list[dict[str, Any]]:
    by_rule = {finding.rule: finding for finding in reversed(report.findings)}
    return [
        {
            "id": rule,
            "shortDescription": {"text": by_rule[rule].title},
            "defaultConfiguration": {"level": by_rule[rule].severity},
            "properties": {"cause": by_rule[rule].cause, "symptom": by_rule[rule].symptom},
        }
        for rule in rules
    ]


def _fixes(report: Report, finding: FindingView) -> dict[str, Any]:
    """The patch as `fixes` of the first root cause, by whole lines of the config; none where the config holds a masked secret."""
    patch, roots = report.patch, base.parts(report)[0]
    if not roots or finding is not roots[0] or patch is None or not (patch.source and patch.diff) or MASK in patch.diff:
        return {}
    replacements = [
        {
            "deletedRegion": {"startLine": first, "startColumn": 1, "endLine": first + count, "endColumn": 1},
            "insertedContent": {"text": "".join(f"{line}\n" for line in new)},
        }
        for first, count, new in _edits(patch.diff)
    ]
    told = "\n".join(remedy.text for remedy in finding.remedies if remedy.in_patch) or finding.title
    change = {"artifactLocation": {"uri": _uri(patch.source)}, "replacements": replacements}
    return {"fixes": [{"description": {"text": told}, "artifactChanges": [change]}]} if replacements else {}


def _edits(diff: str) -> list[tuple[int, int, list[str]]]:
    """(First line of the old file, number of lines to delete, lines to insert there) of a unified diff, from top to bottom."""
    edits: list[tuple[int, int, list[str]]] = []
    line = 0
    fresh = True
    for text in diff.splitlines():
        hunk = re.match(r"@@ -(\d+)(,0)?", text)
        if hunk:
            line, fresh = int(hunk[1]) + bool(hunk[2]), True
        elif text.startswith(("--- ", "+++ ")) and not line:
            continue
        elif text[:1] in ("-", "+"):
            if fresh:
                edits.append((line, 0, []))
            first, count, new = edits[-1]
            edits[-1] = (first, count + 1, new) if text[0] == "-" else (first, count, [*new, text[1:]])
            line, fresh = line + (text[0] == "-"), False
        else:
            line, fresh = line + 1, True
    return edits


def _result(finding: FindingView, index: int, fixes: dict[str, Any]) -> dict[str, Any]:
    advice = [remedy.text for remedy in finding.remedies if remedy.status in ("apply", "manual")]
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {
            "text": "\n".join(
                [finding.title, finding.text, *(f"> {one.text}" for one in finding.says), *(f"- {text}" for text in advice)]
            ).strip()
        },
        "locations": [_location(piece) for piece in finding.evidence[:1]],
        **fixes,
        "relatedLocations": [{"id": number, **_location(piece)} for number, piece in enumerate(finding.evidence[1:9], 1)],
        "properties": {
            "role": finding.role,
            "confidence": finding.confidence,
            **({"candidates": {one.cause: one.probability for one in finding.candidates}} if finding.candidates else {}),
        },
    }


def _location(piece: EvidenceView) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(piece.source)}}
    if piece.line is not None:
        place["region"] = {"startLine": piece.line, "snippet": {"text": piece.text}}
    return {"physicalLocation": place}


def _uri(source: str) -> str:
    """A path as SARIF wants it: relative ones to the repository's root, absolute ones as file: URIs."""
    path = PurePath(source)
    return Path(source).as_uri() if path.is_absolute() else quote(path.as_posix())
