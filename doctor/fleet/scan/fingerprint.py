"""A hash of a failure's cause and normalised evidence: the same for other paths, numbers, ranks and hosts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from doctor.diagnosis.known_issues import normalise
from doctor.rulebook.findings import RankedFinding

MAX_WORDS = 12
"""First words of the evidence that count: an error begins with what it is; values of the run follow. Chosen with
benchmarks/fingerprints.py: fewer merge different causes, more split equal ones."""

_PLACE_FACTS = ("phase", "place")
"""Facts of a match that say where in the program it failed."""
_EXCEPTION = re.compile(r"^(?:[\w.]*\.)?(?P<name>[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Failure|Warning))\b:?")
_QUOTED = re.compile(r"'[^'\n]{1,200}'|\"[^\"\n]{1,200}\"|`[^`\n]{1,200}`")
_VALUE = re.compile(r"(?<=[=:])\s*\S+|\S*[\\/]\S*|\S*\d\S*")
_HOSTS = re.compile(
    r"\b(?:[a-z][\w-]*\.)+[a-z][\w-]*(?=:\d)|\b[\w-]+(?=:\d{2,5}\b)|\b(?:host|node|worker|gpu|ip)[-_]?[\w-]*\d[\w.-]*", re.IGNORECASE
)


def fingerprint(judged: Sequence[RankedFinding]) -> str | None:
    """The fingerprint (12 hex digits) of the root finding, else of the first error; None if nothing failed."""
    chosen = root(judged)
    if chosen is None:
        return None
    return of(chosen.finding.rule.cause, evidence(chosen), _circumstances(chosen))


def root(judged: Sequence[RankedFinding]) -> RankedFinding | None:
    """The finding that represents the failure: the root, else the first error, else the fallback for unknown failures."""
    reportable = [finding for finding in judged if finding.finding.severity != "note"]
    roots = [finding for finding in reportable if finding.role == "root"]
    errors = [finding for finding in reportable if finding.finding.severity == "error"]
    unknown = [finding for finding in judged if finding.finding.rule.fallback]
    return next(iter(roots or errors or unknown), None)


def evidence(judged: RankedFinding) -> str:
    """The first quote of a finding, whole."""
    return next((piece.text for piece in judged.finding.evidence), "")


def of(cause: str, text: str, circumstances: Sequence[str] = ()) -> str:
    """The fingerprint of a cause, its evidence, and the circumstances that tell two such failures apart."""
    return hashlib.blake2b("\0".join((cause, *circumstances, *signature(text))).encode(), digest_size=6).hexdigest()


def _circumstances(judged: RankedFinding) -> list[str]:
    """Where it happened, if the match says so: the same error in evaluation and in the backward pass is two failures."""
    facts = judged.finding.first.facts
    return [f"{name}={value}" for name, value in sorted(facts.items()) if name in _PLACE_FACTS or value is True]


def signature(text: str) -> list[str]:
    """The exception's name and the first words without values, quotes, paths, numbers and hosts."""
    line = text.strip()
    found = _EXCEPTION.match(line)
    first = next((part for part in line[found.end() if found else 0 :].splitlines() if normalise(part)), "")
    stripped = _VALUE.sub(" ", _HOSTS.sub(" ", _QUOTED.sub(" ", first)))
    words = normalise(stripped) or normalise(first)
    return [*([found["name"].lower()] if found else []), *words[:MAX_WORDS]]
