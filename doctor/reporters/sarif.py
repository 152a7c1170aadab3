"""SARIF 2.1.0 for code-scanning pages and editors; each finding points to the line of the config or log that proves it."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

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
        "results": [_result(finding, rules.index(finding.rule)) for finding in report.findings],
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


def _result(finding: FindingView, index: int) -> dict[str, Any]:
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
