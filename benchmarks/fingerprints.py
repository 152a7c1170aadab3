"""How well fingerprints keep failures apart and together, on labelled public failures.

    python benchmarks/fingerprints.py CASES

CASES is a folder of JSON files {cause, also_accepted, decidable, log}. Apart: of all pairs of cases with equal fingerprints, how many
have different causes (a pair is of one cause where one's cause is accepted for the other). Together: every log is written anew ten times
with other paths, numbers, ranks and hosts, as another machine would have printed it; the share that keeps its fingerprint.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor import diagnose
from doctor.errors import DoctorError
from doctor.fleet import fingerprint

VARIANTS = 10
TOOLS = diagnose.Tools.load()


def judged(log: str) -> list[Any]:
    """The findings on a console of this text; none where there is nothing to read."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "console.log").write_text(log + "\n", encoding="utf-8")
        try:
            return diagnose.examine(folder, tools=TOOLS).judged
        except DoctorError:
            return []


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
    """Prints both shares and what they fail on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    cases = [json.loads(path.read_text("utf-8")) for path in sorted(given.cases.glob("*.json"))]
    cases = [case for case in cases if case.get("decidable", True)]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    kept = varied = 0
    for case in cases:
        found = judged(case["log"])
        name = fingerprint.fingerprint(found)
        if name is None:
            continue
        groups[name].append(case)
        chance = random.Random(case["log"])
        for _ in range(VARIANTS):
            other = judged(vary(case["log"], chance))
            same = fingerprint.fingerprint(other) == name
            kept += same
            varied += 1
            if given.verbose and not same:
                _explain(case, found, other)
                break
    pairs = [pair for group in groups.values() for pair in combinations(group, 2)]
    wrong = [pair for pair in pairs if not _one_cause(*pair)]
    if given.verbose:
        for a, b in wrong:
            print("  merged:", a["id"], a["cause"], "|", b["id"], b["cause"])
    print(f"{len(cases)} cases, {sum(map(len, groups.values()))} with a failure found, {len(groups)} fingerprints")
    print(f"pairs with equal fingerprints: {len(pairs)}, of different causes: {len(wrong)} ({len(wrong) / max(1, len(pairs)):.1%})")
    print(f"varied logs: {varied}, fingerprint kept: {kept} ({kept / max(1, varied):.1%})")


def _one_cause(a: dict[str, Any], b: dict[str, Any]) -> bool:
    accepted: Callable[[dict[str, Any]], set[str]] = lambda case: {case["cause"], *case.get("also_accepted", ())}  # noqa: E731
    return bool(accepted(a) & accepted(b))


def _explain(case: dict[str, Any], before: list[Any], after: list[Any]) -> None:
    print("  broken:", case["id"])
    for found in (before, after):
        one = fingerprint.root(found)
        print("    ", one and (one.finding.rule.id, fingerprint.signature(fingerprint.evidence(one))))


if __name__ == "__main__":
    main()
