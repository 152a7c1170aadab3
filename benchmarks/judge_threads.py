"""Score `lfdoctor analyze` on a folder of labelled texts: `python benchmarks/judge_threads.py DIR [--by FIELD] [--show] [--json OUT]`.

DIR holds a JSON file a text: {id, cause, also_accepted, log, config, decidable}. `cause` is the label, `healthy` where nothing failed;
`other:NAME` a cause that the rules lack. `config` (or null) is YAML or a command line. `decidable: false`: the text proves no cause; it is
counted as such and not judged. The first finding that is an error or a warning is the answer. OUT is what `accuracy.py record` takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classifier_examples import is_yaml

import doctor

ROOT = Path(__file__).resolve().parent.parent


class Judged(NamedTuple):
    """One text: its group (`--by`), what came of it, and the cause that was named."""

    id: str
    group: str
    outcome: str
    """right, unknown, wrong; got_a_cause or left_alone of a text without a failure; undecidable."""
    said: str | None


def named(log: str, config: Any) -> str | None:
    """The cause that the report names first; None where it names none."""
    if isinstance(config, dict):
        config = "\n".join(f"{key}: {json.dumps(value)}" for key, value in config.items())
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "console.log").write_text(log + "\n", encoding="utf-8")
        if config:
            (Path(folder) / ("train.yaml" if is_yaml(config) else "command.sh")).write_text(config + "\n", encoding="utf-8")
        report = doctor.analyze(folder)
    found = (one.cause for one in report.findings if one.severity in ("error", "warning"))
    cause = next(found, None)
    return None if cause == "unknown" else cause


def judge(case: Mapping[str, Any], by: str | None = None) -> Judged:
    """One labelled text."""
    said = named(case["log"], case.get("config"))
    group, label = str(case.get(by or "", "")), case["cause"].removeprefix("other:")
    if label == "healthy":
        outcome = "left_alone" if said is None else "got_a_cause"
    elif not case["decidable"]:
        outcome = "undecidable"
    elif said is None:
        outcome = "unknown"
    else:
        outcome = "right" if said in {label, *(one.removeprefix("other:") for one in case.get("also_accepted", ()))} else "wrong"
    return Judged(case["id"], group, outcome, said)


def parts(judged: Iterable[Judged], group: str | None = None) -> dict[str, dict[str, int]]:
    """The counts in the record's form: the texts that can be decided, and those without a failure."""
    outcomes = [one.outcome for one in judged if group is None or one.group == group]
    out = {}
    decided = [one for one in outcomes if one in ("right", "unknown", "wrong")]
    if decided:
        out["all" if group is None else group] = {"of": len(decided), **{one: decided.count(one) for one in ("right", "unknown", "wrong")}}
    sound = [one for one in outcomes if one in ("left_alone", "got_a_cause")]
    if sound and group is None:
        out["no_failure"] = {"of": len(sound), "got_a_cause": sound.count("got_a_cause")}
    return out


def score(judged: list[Judged], by: str | None) -> dict[str, Any]:
    """What `accuracy.py record` takes; `misses` are the ids of wrong answers with what was said, for the one who names their kinds."""
    groups = sorted({one.group for one in judged}) if by else []
    counted = parts(judged) | {name: figures for group in groups for name, figures in parts(judged, group).items()}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "script": "benchmarks/judge_threads.py",
        "commit": commit,
        "texts": len(judged),
        "parts": counted,
        "misses": {one.id: one.said for one in judged if one.outcome in ("wrong", "got_a_cause")},
    }


def main() -> None:
    """Print the counts, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--by", help="a field of the texts whose values are groups; the record wants names of accuracy_words.yaml")
    parser.add_argument("--show", action="store_true", help="the texts that are not right")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    judged = [judge(json.loads(path.read_text(encoding="utf-8")), given.by) for path in sorted(given.folder.glob("*.json"))]
    found = score(judged, given.by)
    for part, figures in found["parts"].items():
        print(part, ", ".join(f"{name} {count}" for name, count in figures.items()))
    for one in judged if given.show else ():
        if one.outcome in ("wrong", "unknown", "got_a_cause"):
            print(f"  {one.outcome} {one.id}: {one.said}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
