"""Sentences for what separates runs."""

from __future__ import annotations

from doctor.fleet.attribution.changes import Attribution, Candidate
from doctor.words import catalogue


def verdict(found: Attribution, lang: str) -> str:
    """The answer in one sentence; empty if a change explains the failures (its own sentence says so)."""
    return "" if found.verdict == "found" else catalogue.say(f"fleet.say.{found.verdict}", lang)


def candidate(candidate: Candidate, lang: str) -> str:
    """A candidate in one sentence."""
    text = catalogue.say(
        "fleet.say.suspect",
        lang,
        key=candidate.key,
        question=candidate.question,
        failed_with=candidate.failed_with,
        with_=candidate.with_,
        failed_without=candidate.failed_without,
        without=candidate.without,
        adjusted=f"{candidate.adjusted:.3f}",
    )
    return f"{text}; {catalogue.say('fleet.say.same', lang, names=', '.join(candidate.same))}" if candidate.same else text
