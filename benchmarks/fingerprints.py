"""Precision and stability of failure fingerprints, on this repository's fixtures and optionally on labelled public failures.

    python benchmarks/fingerprints.py [CASES ...] [--variants 10]

CASES are folders of JSON files {cause, also_accepted, decidable, log}.

- Apart: of all pairs of failures with equal fingerprints, the share with different causes (a pair has the same cause if either cause is
  accepted for the other).
- Together: every log is rewritten ten times with other paths, numbers, ranks and hosts; the share that keeps its fingerprint.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.diagnosis import pipeline
from doctor.diagnosis.tools import Tools
from doctor.errors import DoctorError
from doctor.fleet.scan import fingerprint

ROOT = Path(__file__).resolve().parent.parent
ABOUT = ("ORIGIN.md", "expected.yaml")
"""Files of a fixture that are not part of the run."""

CONSOLES = (".log", ".txt", ".out", ".err")
"""Suffixes of consoles."""

TOOLS = Tools.load()
"""Detectors, rules and readers, loaded once."""


class Failure(NamedTuple):
    """A failure with known cause: files by path, and every accepted cause."""

    name: str
    causes: frozenset[str]
    files: dict[str, bytes]


def judged(files: dict[str, bytes]) -> list[Any]:
    """The findings for a folder with these files; empty if nothing can be read."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            path = Path(folder, "run", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            return pipeline.run_analysis(str(Path(folder, "run")), tools=TOOLS).judged
        except DoctorError:
            return []


def given_cases(folder: Path) -> Iterator[Failure]:
    """The decidable failures of a folder."""
    for path in sorted(folder.glob("*.json")):
        case = json.loads(path.read_text(encoding="utf-8"))
        if case["decidable"] and case["cause"] != "healthy":
            causes = frozenset({case["cause"], *case.get("also_accepted", ())})
            yield Failure(case["id"], causes, {"console.log": case["log"].encode() + b"\n"})


def fixtures() -> Iterator[Failure]:
    """The failed runs among this repository's fixtures."""
    for folder in sorted(path.parent for path in (ROOT / "fixtures").glob("*/expected.yaml")):
        cause = yaml.safe_load((folder / "expected.yaml").read_text(encoding="utf-8")).get("cause")
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        if cause:
            yield Failure(folder.name, frozenset({cause}), {name: data for name, data in files.items() if name not in ABOUT})


def elsewhere(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """The files as from another machine: consoles varied, curves and configs unchanged."""
    return {
        name: vary(data.decode("utf-8", "surrogateescape"), chance).encode("utf-8", "surrogateescape") if name.endswith(CONSOLES) else data
        for name, data in files.items()
    }


def vary(log: str, chance: random.Random) -> str:
    """The same failure on another machine: folders of the user, step and memory figures, ranks, hosts, dates, ids; never the wording.

    Numbers that name something (versions, exit codes, error numbers, bits, `fp16`, line numbers of library files) stay: another one
    would be another failure. Sizes keep their magnitude: the same overflow on the same card, at another moment.
    """
    home = f"/{chance.choice(['mnt', 'data', 'home', 'nfs'])}/u{chance.randrange(1000)}/{chance.choice(['proj', 'work', 'llm'])}"
    log = re.sub(r"/(?:home|root|data|mnt|workspace|srv|nfs|work|opt/ml|users)(?:/[\w.-]+)?(?=/)", lambda _: home, log)
    log = re.sub(r"(?i)\b(?:\d{1,3}\.){3}\d{1,3}\b", lambda _: ".".join(str(chance.randrange(1, 255)) for _ in range(4)), log)
    log = re.sub(
        r"(?i)\b(?:node|host|worker|gpu|ip|server)[-_]?\d+\b(?![.:]\d*\s*\w*i?b)",
        lambda m: _other_digits(m[0], chance) if "gpu" not in m[0].lower() else m[0],
        log,
    )
    rank = chance.randrange(8)
    ranks: dict[str, str] = {}
    log = re.sub(r"(?i)(\[?(?:local_)?rank\W{0,2})(\d+)", lambda m: m[1] + ranks.setdefault(m[2], str((int(m[2]) + rank) % 64)), log)
    log = re.sub(r"\b0x[0-9a-f]{6,}\b", lambda _: hex(chance.getrandbits(44)), log)
    log = re.sub(r"\b(\d+\.\d+)(?= ?[KMGT]i?B\b)", lambda m: f"{float(m[1]) * chance.uniform(0.97, 1.03):.2f}", log)
    log = re.sub(r"(?i)((?:pid|process|port)\W{0,3})(\d{3,6})\b", lambda m: m[1] + str(chance.randrange(1000, 65000)), log)
    log = re.sub(r"\b(\d{4}-\d\d-\d\d[ T])\d\d:\d\d:\d\d", lambda m: m[1] + f"1{chance.randrange(10)}:2{chance.randrange(10)}:37", log)
    return re.sub(r"(\d+)(/\d+ \[)", lambda m: f"{max(1, int(m[1]) + chance.randrange(-1, 2))}{m[2]}", log)


def _other_digits(text: str, chance: random.Random) -> str:
    return re.sub(r"\d", lambda _: str(chance.randrange(1, 10)), text)


def main() -> None:
    """Print both shares and the failures behind them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="*")
    parser.add_argument("--variants", type=int, default=10)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    groups: dict[str, list[Failure]] = defaultdict(list)
    cases = [*fixtures(), *(case for folder in given.cases for case in given_cases(folder))]
    kept = varied = 0
    for case in cases:
        found = judged(case.files)
        name = fingerprint.fingerprint(found)
        if name is None:
            continue
        groups[name].append(case)
        chance = random.Random(case.name)
        for _ in range(given.variants):
            other = judged(elsewhere(case.files, chance))
            same = fingerprint.fingerprint(other) == name
            if given.verbose and not same:
                _explain(case, found, other)
            kept += same
            varied += 1
    pairs = [pair for group in groups.values() for pair in combinations(group, 2)]
    wrong = [(a, b) for a, b in pairs if not a.causes & b.causes]
    for a, b in wrong if given.verbose else ():
        print("  merged:", a.name, sorted(a.causes), "|", b.name, sorted(b.causes))
    print(f"{len(cases)} failures, {sum(map(len, groups.values()))} with something found, {len(groups)} fingerprints")
    print(f"pairs with equal fingerprints: {len(pairs)}, of different causes: {len(wrong)} ({len(wrong) / max(1, len(pairs)):.1%})")
    print(f"varied logs: {varied}, fingerprint kept: {kept} ({kept / max(1, varied):.1%})")


def _explain(case: Failure, before: list[Any], after: list[Any]) -> None:
    print("  broken:", case.name)
    for found in (before, after):
        root = fingerprint.root(found)
        print("    ", root and (root.finding.rule.id, fingerprint.signature(fingerprint.evidence(root))))


if __name__ == "__main__":
    main()
