"""How often the nearest known failure has the right cause, over thresholds: basis of known_issues.UNKNOWN_CAUSE and SAME_CAUSE.

    python benchmarks/known_issues.py CASES

CASES is a folder of JSON files {issue, cause, also_accepted, log}: public failures with the cause that a person gave them. Each is
asked with its own issue left out of the known ones, once as if its cause were not known (over all causes), once as a report asks.
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


def _given(index: known_issues.Index) -> known_issues.Index:
    """What `similar_issues` asks for when it needs an index."""
    return index


def diagnosed(case: dict[str, Any]) -> Analysis:
    """The analysis of a case's console."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "console.log").write_text(case["log"] + "\n", encoding="utf-8")
        return pipeline.run_analysis(folder)


def main() -> None:
    """Prints, per threshold, how many cases are told an issue and how many of those rightly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    known = known_issues.shipped().known
    nearest: list[tuple[float, bool]] = []
    found = told = 0
    for path in sorted(parser.parse_args().cases.glob("*.json")):
        case = json.loads(path.read_text("utf-8"))
        right = {case["cause"], *case.get("also_accepted", ())}
        index = known_issues.Index([one for one in known if one.issue.lower() != case["issue"].lower()])
        seen = diagnosed(case)
        finding = next((one for one in seen.judged if known_issues.is_looked_up(one, seen.report.cause)), None)
        if finding is None or seen.report.healthy:
            continue
        text = "\n".join(quote.text for quote in quotes(finding.finding))
        if "out of memory" not in text.lower():  # a rule always knows those
            score, first = next(iter(index.nearest(text)), (0.0, None))
            nearest.append((score, first is not None and first.cause in right))
        if finding.finding.rule.cause != "unknown":
            found += 1
            told += any(known_issues.similar_issues(seen.judged, partial(_given, index)))
    print(f"{len(known)} known issues; causes found: {found}, told a known failure of the same cause: {told} ({told / max(1, found):.0%})")
    print(f"as if the cause were not known: {len(nearest)} cases\nthreshold   told   right")
    for threshold in THRESHOLDS:
        passed = [right for score, right in nearest if score >= threshold]
        print(f"{threshold:9.2f} {len(passed):6} {sum(passed) / max(1, len(passed)):6.0%}")


if __name__ == "__main__":
    main()
