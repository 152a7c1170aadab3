"""How often the most similar known issue has the right cause, by threshold; source of known_issues.UNKNOWN_CAUSE and SAME_CAUSE.

    python benchmarks/known_issues.py CASES

CASES is a folder of JSON files {issue, cause, also_accepted, log}: public failures labelled by a person. Each is looked up without its
own issue, once over all causes, as if its cause were unknown, and once as a report does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.diagnosis import known_issues, pipeline
from doctor.diagnosis.pipeline import Analysis
from doctor.report.quoting import quotes

THRESHOLDS = (0.0, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
"""Similarity thresholds tried, 0..1."""


def _given(index: known_issues.Index) -> known_issues.Index:
    """The index loader for `similar_issues`."""
    return index


def diagnosed(case: dict[str, Any]) -> Analysis:
    """The analysis of a case's console."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "console.log").write_text(case["log"] + "\n", encoding="utf-8")
        return pipeline.run_analysis(folder)


def main() -> None:
    """Print, per threshold, the number of cases with a known issue and how many of these have the right cause."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    known = known_issues.shipped().known
    nearest: list[tuple[float, bool]] = []
    found = answered = 0
    for path in sorted(parser.parse_args().cases.glob("*.json")):
        case = json.loads(path.read_text("utf-8"))
        right = {case["cause"], *case.get("also_accepted", ())}
        index = known_issues.Index([issue for issue in known if issue.issue.lower() != case["issue"].lower()])
        seen = diagnosed(case)
        finding = next((ranked for ranked in seen.judged if known_issues.is_looked_up(ranked, seen.report.cause)), None)
        if finding is None or seen.report.healthy:
            continue
        text = "\n".join(quote.text for quote in quotes(finding.finding))
        if "out of memory" not in text.lower():  # rules cover all of those
            score, first = next(iter(index.nearest(text)), (0.0, None))
            nearest.append((score, first is not None and first.cause in right))
        if finding.finding.rule.cause != "unknown":
            found += 1
            answered += any(known_issues.similar_issues(seen.judged, partial(_given, index)))
    print(f"{len(known)} known issues; causes found: {found}, with a known issue of it: {answered} ({answered / max(1, found):.0%})")
    print(f"as if the cause were not known: {len(nearest)} cases\nthreshold  shown   right")
    for threshold in THRESHOLDS:
        passed = [right for score, right in nearest if score >= threshold]
        print(f"{threshold:9.2f} {len(passed):6} {sum(passed) / max(1, len(passed)):6.0%}")


if __name__ == "__main__":
    main()
