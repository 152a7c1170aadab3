"""What the index of origins finds in labelled failures, and what it costs.

    python benchmarks/origins.py [CASES] [--show] [--foreign SITE_PACKAGES]

CASES is a folder of JSON files {cause, also_accepted, decidable, log}: public failures labelled by a person. Counted are decidable cases
that print an exception: those whose last exception's origin is found, and those whose origin has a cause, right or wrong.
With --foreign, the messages of installed packages that the index lacks are looked up: each origin found there is a false one, unless the
package copied the message.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from origins_holdout import VALUES
from raise_sites import sites

from doctor.core.events import Crash
from doctor.diagnosis.unlisted import origin_index, origins
from doctor.readers import reading

ECHOES = ("KeyboardInterrupt", "SystemExit", "ChildFailedError", "CalledProcessError", "SignalException")
"""Exceptions of launchers and of users: they say nothing of the failure."""


def crashes(log: str) -> Iterator[Crash]:
    """The exceptions that a console prints."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "console.log").write_text(log + "\n", encoding="utf-8")
        yield from (event for event in reading.read([folder]).events() if isinstance(event, Crash) and event.exception)


def frame_of(crash: Crash) -> tuple[str | None, str | None]:
    """Package and function of the frame that raised; None where it is no frame of an indexed package."""
    if not crash.frames:
        return None, None
    folders = crash.frames[-1].file.replace("\\", "/").split("/")
    package = next((folder for folder in reversed(folders[:-1]) if folder in origin_index.load().head.versions), None)
    return package, crash.frames[-1].function if package else None


def judged(case: dict[str, Any]) -> tuple[str, Crash | None, origins.Origin | None]:
    """What the last exception of a case comes to: "no exception", "unknown", "found", "right" or "wrong"."""
    told = [crash for crash in crashes(case["log"]) if crash.exception.rpartition(".")[2] not in ECHOES]
    if not told:
        return "no exception", None, None
    origin = origins.find(told[-1].exception, told[-1].message, *frame_of(told[-1]))
    if origin is None or origin.cause is None:
        return "unknown" if origin is None else "found", told[-1], origin
    return "right" if origin.cause in (case["cause"], *case.get("also_accepted", ())) else "wrong", told[-1], origin


def cost() -> str:
    """Size of the file, milliseconds to load it and to look up one message and a hostile one."""
    begin = time.process_time()
    index = origin_index.load()
    loaded = time.process_time()
    origins.find("ValueError", "Target modules {'query'} not found in the base model. Please check the target modules and try again.")
    first = time.process_time()
    origins.find("ValueError", " ".join(word for block in index.head.words for word in block[:1]))
    hostile = time.process_time()
    size = origin_index.FILE.stat().st_size / 1e6
    times = [1000 * (after - before) for before, after in ((begin, loaded), (loaded, first), (first, hostile))]
    hostile_words = f"a message of {origin_index.MAX_WORDS} rare words {times[2]:.0f} ms"
    return f"{size:.2f} MB; processor time: load {times[0]:.0f} ms, first look-up {times[1]:.1f} ms, {hostile_words}"


def foreign(folder: Path, show: bool) -> str:
    """How many messages of packages that are not in the index have an origin in it, by their text and class alone."""
    known = set(origin_index.load().head.versions)
    values = random.Random(0)
    messages: dict[tuple[str, str], str] = {}
    for file in sorted(folder.rglob("*.py")):
        package = file.relative_to(folder).parts[0]
        if package not in known and not package.startswith("_") and "test" not in str(file.relative_to(folder)):
            for site in sites(file.read_bytes()) or []:
                text = "".join(values.choice(VALUES) if piece is None else piece for piece in site.pieces)
                messages.setdefault((site.exception, text), package)
    found = [(package, text, origin) for (exception, text), package in messages.items() if (origin := origins.find(exception, text))]
    for package, text, origin in found if show else ():
        print(f"{package}: {text[:100]!r}\n    {origin.bits} bits {origin.sites[0].module}: {origin.template[:100]!r}")
    return (
        f"{len(messages)} messages of {len(set(messages.values()))} packages that are not in the index: {len(found)} have an origin in it"
    )


def main() -> None:
    """Print the counts and, with --show, each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="?")
    parser.add_argument("--foreign", type=Path)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    print(cost())
    if given.foreign is not None:
        print(foreign(given.foreign, given.show))
    if given.cases is not None:
        _print_cases(given.cases, given.show)


def _print_cases(folder: Path, show: bool) -> None:
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.json")):
        case = json.loads(path.read_text("utf-8"))
        if not case["decidable"] or case["cause"] == "healthy":
            continue
        result, crash, origin = judged(case)
        counts[result] += 1
        if show and crash is not None:
            print(f"{path.stem} [{case['cause']}] {result}: {crash.text[:150]!r} {frame_of(crash)}")
            if origin is not None:
                place = f"{origin.package or '?'} {origin.module}:{origin.function} {origin.sites[0].first}-{origin.sites[0].last}"
                print(f"    {origin.bits} bits {origin.confidence:.2f} {place} {origin.cause}: {origin.template[:120]!r}")
    cases = sum(counts.values())
    known = cases - counts["no exception"] - counts["unknown"]
    print(f"{cases} decidable cases, {cases - counts['no exception']} print an exception; origin found: {known}; {dict(counts)}")


if __name__ == "__main__":
    main()
