"""The accuracy page and its record: what was measured on material of others, beside what this checkout measures itself.

    python benchmarks/accuracy.py page [--check]
    python benchmarks/accuracy.py record SCORE.json --id ID --run first|later|tuned [--about ABOUT.yaml] [--record FILE]

`page` writes docs/accuracy.md and docs/ko/accuracy.md in about a minute; with --check it only says whether they are current. `record` takes
a score as benchmarks/judge_threads.py writes it into benchmarks/data/accuracy.yaml. A new entry needs ABOUT: a YAML file with section,
date, blind, title and material in English and Korean, and misses (benchmarks/README.md). What is recorded is never written over.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import yaml
from accuracy_record import RECORD, RUNS, RecordError, add, entries

DOCS = Path(__file__).resolve().parent.parent / "docs"
PLACES = {"en": DOCS / "accuracy.md", "ko": DOCS / "ko" / "accuracy.md"}


def page(check: bool) -> int:
    """Write the pages, or with `check` name those that are not current and return 1 for any."""
    from accuracy_measured import measured  # the diagnosis is loaded only where it is needed
    from accuracy_page import pages

    wanted = {PLACES[lang]: text for lang, text in pages(entries(), measured())}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(path)
        else:
            path.write_text(wanted[path], encoding="utf-8", newline="\n")
    return int(check and bool(stale))


def record(given: argparse.Namespace) -> int:
    """Add a score to the record; exit code 1 with the reason where it is not well formed or stands there already."""
    about = yaml.safe_load(given.about.read_text(encoding="utf-8")) if given.about else {}
    try:
        add(given.record, json.loads(given.score.read_text(encoding="utf-8")), {"id": given.id, **about}, given.run)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    written = commands.add_parser("page")
    written.add_argument("--check", action="store_true")
    added = commands.add_parser("record")
    added.add_argument("score", type=Path)
    added.add_argument("--id", required=True)
    added.add_argument("--run", choices=RUNS, required=True)
    added.add_argument("--about", type=Path)
    added.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args(words)
    return page(given.check) if given.command == "page" else record(given)


if __name__ == "__main__":
    sys.exit(main())
