"""A short name for a failure that stays the same over paths, numbers, ranks and hosts: cause and normalised evidence, hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from doctor.diagnosis.known_issues import normalise
from doctor.rulebook.findings import RankedFinding

WORDS = 12
"""So many words of the evidence count: an error says what it is at its beginning, and what follows are the values of one run.
Chosen with benchmarks/fingerprints.py: fewer merge different causes, more break under other values."""

_TELLING = ("phase", "place")
"""Facts of a match that say where in the program it failed."""
_EXCEPTION = re.compile(r"^(?:[\w.]*\.)?(?P<name>[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Failure|Warning))\b:?")
_QUOTED = re.compile(r"'[^'\n]{1,200}'|\"[^\"\n]{1,200}\"|`[^`\n]{1,200}`")
_VALUE = re.compile(r"(?<=[=:])\s*\S+|\S*[\\/]\S*|\S*\d\S*")
_HOSTS = re.compile(
    r"\b(?:[a-z][\w-]*\.)+[a-z][\w-]*(?=:\d)|\b[\w-]+(?=:\d{2,5}\b)|\b(?:host|node|worker|gpu|ip)[-_]?[\w-]*\d[\w.-]*", re.IGNORECASE
)


def fingerprint(judged: Sequence[RankedFinding]) -> str | None:
    """The failure's fingerprint (12 hex digits) by its root finding, else by the first error; None where nothing failed."""
    chosen = root(judged)
    if chosen is None:
        return None
    return of(chosen.finding.rule.cause, evidence(chosen), _circumstances(chosen))


def root(judged: Sequence[RankedFinding]) -> RankedFinding | None:
    """The finding that stands for the failure: the root, else the first error, else what no rule knows (a note, but all there is)."""
    told = [one for one in judged if one.finding.rule.severity != "note"]
    roots = [one for one in told if one.role == "root"]
    errors = [one for one in told if one.finding.rule.severity == "error"]
    unknown = [one for one in judged if one.finding.rule.fallback]
    return next(iter(roots or errors or unknown), None)


def evidence(judged: RankedFinding) -> str:
    """The first quote of a finding, whole."""
    return next((piece.text for piece in judged.finding.evidence), "")


def of(cause: str, text: str, circumstances: Sequence[str] = ()) -> str:
    """The fingerprint of a cause, the text that proves it, and what else tells two such failures apart."""
    return hashlib.blake2b("\0".join((cause, *circumstances, *signature(text))).encode(), digest_size=6).hexdigest()


def _circumstances(judged: RankedFinding) -> list[str]:
    """Where it happened, as far as the match tells: the same words in evaluation and in the backward pass are two failures."""
    facts = judged.finding.first.facts
    return [f"{name}={value}" for name, value in sorted(facts.items()) if name in _TELLING or value is True]


def signature(text: str) -> list[str]:
    """The exception's name and the first words that do not change from run to run: no values, quotes, paths, numbers or hosts."""
    line = text.strip()
    found = _EXCEPTION.match(line)
    first = next((one for one in line[found.end() if found else 0 :].splitlines() if normalise(one)), "")
    stripped = _VALUE.sub(" ", _HOSTS.sub(" ", _QUOTED.sub(" ", first)))
    words = normalise(stripped) or normalise(first)
    return [*([found["name"].lower()] if found else []), *words[:WORDS]]
