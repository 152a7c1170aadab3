"""How often the answers on unlisted failures are right, by kind and row: `python benchmarks/reliability.py CASES... [--write]`.

CASES are folders of labelled public failures (see fallback.py); a GPU out of memory is left out, since its detector leaves none over. With
every rule off each failure gets the answer of origin or decision table, and the classifier's opinion on it: agreed, disagreed, or none
(alone). Printed: what each kind got right, and, with the records of all other repositories alone, how far the confidence that a report
would state is from the share of right answers (leave-one-repository-out).
`--write` writes rules/reliability.yaml, from which reports take their confidence.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classifier_examples import ROOT, write_run
from fallback import calibration_error

from doctor.detectors.oom_message import find_head
from doctor.diagnosis.unlisted.answer import concluded, raised
from doctor.diagnosis.unlisted.candidates import opinions_on
from doctor.diagnosis.unlisted.with_origin import SURE, origin_of
from doctor.rulebook.exceptions import LIKELY
from doctor.rulebook.reliability import FILE, KINDS, Record, Reliability, kind_of


class Told(NamedTuple):
    """One answer: its kind (`KINDS`), its row or origin's cause, and whether a person accepts it."""

    repository: str
    kind: str
    row: str
    right: bool


def told_in(folders: Iterable[Path]) -> Iterator[Told]:
    """The answers on the decidable failures of the folders."""
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
        case = json.loads(path.read_text(encoding="utf-8"))
        if case["decidable"] and case["cause"] != "healthy" and find_head(" ".join(case["log"].split())) is None:
            config = case.get("config")
            if isinstance(config, dict):
                config = "\n".join(f"{key}: {json.dumps(value)}" for key, value in config.items())
            accepted = {cause.removeprefix("other:") for cause in (case["cause"], *case.get("also_accepted", ()))}
            yield from _told(case["issue"].partition("#")[0].lower(), case["log"], config, accepted)


def _told(repository: str, log: str, config: str | None, accepted: set[str]) -> Iterator[Told]:
    """The answer on one failure, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        run, seen, console = write_run(Path(folder), log, config)
        found = concluded(run, seen, [console])
        opinions = opinions_on(run, seen, [console])
        origins = (origin_of(one.features) for one in raised(run, seen))
        origin = next((one for one in origins if one is not None), None)
    said, row, cause = None, "", None
    if found is not None and found.rule.cause != "unknown":
        said = "likely" if found.confidence >= LIKELY else "possible"
        row, cause = found.rule.id, found.rule.cause
    if said != "likely" and origin is not None and origin.cause and origin.reviewed and not origin.elsewhere and origin.confidence >= SURE:
        said, row, cause = "origin", "", origin.cause
    if said is not None:
        agreement = "alone" if not opinions else "agreed" if opinions[0].cause == cause else "disagreed"
        yield Told(repository, kind_of(said, agreement), row, cause in accepted)


def records(told: Sequence[Told]) -> Reliability:
    """What each kind and each row got right."""
    right, number = Counter[str](), Counter[str]()
    for one in told:
        for name in filter(None, (one.kind, one.row)):
            number[name] += 1
            right[name] += one.right
    made = {name: Record(right[name], number[name]) for name in sorted(number)}
    return Reliability(
        failures=len(told),
        repositories=len({one.repository for one in told}),
        kinds={kind: made.get(kind, Record(0, 0)) for kind in KINDS},
        rows={name: record for name, record in made.items() if "/" in name},
    )


def stated(told: Sequence[Told]) -> list[tuple[float, bool]]:
    """The confidence of each answer by the records of all other repositories, and whether it is right."""
    without = {name: records([one for one in told if one.repository != name]) for name in {one.repository for one in told}}
    return [(without[one.repository].confidence(one.kind, one.row), one.right) for one in told]


def write(found: Reliability) -> None:
    """The file that the reports read."""
    lines = [
        "# Written by benchmarks/reliability.py --write: how often each kind of answer on an unlisted failure, and each row of the table,",
        "# named a cause that a person gave or accepted. Every rule was off; the failures must be newer than the rows.",
        f"failures: {found.failures}",
        f"repositories: {found.repositories}",
        "kinds:",
        *(f"  {name}: {{right: {record.right}, told: {record.told}}}" for name, record in found.kinds.items()),
        "rows:",
        *(f"  {name}: {{right: {record.right}, told: {record.told}}}" for name, record in found.rows.items()),
    ]
    (ROOT / "rules" / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Print the figures, and write the file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    told = list(told_in(options.cases))
    found = records(told)
    for name, record in found.kinds.items():
        print(f"{name:20} {record.right:4} of {record.told:4} right  {100 * record.rate:.0f} %")
    pairs = stated(told)
    print(f"leave one repository out: calibration error {calibration_error(pairs):.1f} points over {len(pairs)} answers")
    for word, low, high in (("likely", 0.7, 1.0), ("possible", 0.5, 0.7), ("candidates only", 0.0, 0.5)):
        inside = [right for confidence, right in pairs if low <= confidence < high]
        print(f"  {word:16} {len(inside):4} answers, {100 * sum(inside) / max(1, len(inside)):.0f} % right")
    if options.write:
        write(found)


if __name__ == "__main__":
    main()
