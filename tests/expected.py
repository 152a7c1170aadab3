"""Rewrites fixtures/*/expected.yaml from what the doctor says today (`make expected`); the diff is what one reviews.

A regenerated expectation cannot hide a wrong cause: the cause of a lab fixture is declared by hand in tests/lab/scenarios.py and
checked on its own by tests/test_fixtures.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

import doctor
from doctor.cli.analyze import exit_code
from doctor.report.model import Report

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def fixtures() -> list[Path]:
    """All fixture folders."""
    return sorted(path.parent for path in FIXTURES.glob("*/ORIGIN.md"))


def summary(analyzed: Report) -> dict[str, Any]:
    """What expected.yaml keeps of a report: verdict, findings, patch; no words, no figures that a better text would change."""
    report = analyzed.to_dict()
    findings = [{key: one[key] for key in ("rule", "cause", "role", "severity")} | {"ranks": one["ranks"]} for one in report["findings"]]
    patch = report["patch"]
    changes = [{key: one[key] for key in ("target", "op", "key", "new")} for one in patch["changes"]] if patch else []
    return {
        "cause": report["cause"],
        "exit_code": exit_code(analyzed, ("error",)),
        "verdict": report["verdict"],
        "healthy": report["healthy"],
        "status": report["run"]["status"],
        "findings": findings,
        "patch": changes,
    }


def write(fixture: Path) -> bool:
    """Writes expected.yaml; True if it changed."""
    target = fixture / "expected.yaml"
    text = yaml.safe_dump(summary(doctor.analyze(fixture)), sort_keys=False, allow_unicode=True, width=140)
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return False
    target.write_text(text, encoding="utf-8", newline="\n")
    return True


if __name__ == "__main__":
    changed = [fixture.name for fixture in fixtures() if write(fixture)]
    print(f"{len(changed)} of {len(fixtures())} expectations changed", *changed, sep="\n  ", file=sys.stderr)
