"""Hand-written console excerpts, each with the causes a good doctor may name first."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import doctor

FILES = [Path(__file__).parents[1] / "cases" / name for name in ("memory.yaml", "other.yaml")]
CASES = [case for path in FILES for case in yaml.safe_load(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_first_finding_names_an_accepted_cause(case, tmp_path):
    """The excerpt (and its config) lead to a finding whose cause is one of those accepted; a healthy one to none above a note."""
    (tmp_path / "console.log").write_text(case["log"], encoding="utf-8")
    if "config" in case:
        (tmp_path / "train.yaml").write_text(yaml.safe_dump(case["config"]), encoding="utf-8")
    report = doctor.analyze(tmp_path)
    causes = [finding.cause for finding in report.findings if finding.severity != "note"]
    assert (causes[:1] or ["healthy"])[0] in case["cause"]
