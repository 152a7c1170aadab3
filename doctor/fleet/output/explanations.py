"""An explanation of a difference between runs, in sentences."""

from __future__ import annotations

from doctor.fleet.attribution.changes import Candidate, Explanation
from doctor.words import catalogue


def verdict(found: Explanation, lang: str) -> str:
    """The answer in one sentence, empty where a guilty change was found: the suspects speak for themselves."""
    return "" if found.verdict == "found" else catalogue.say(f"fleet.say.{found.verdict}", lang)


def candidate(one: Candidate, lang: str) -> str:
    """A candidate in one sentence."""
    text = catalogue.say(
        "fleet.say.suspect",
        lang,
        key=one.key,
        question=one.question,
        failed_with=one.failed_with,
        with_=one.with_,
        failed_without=one.failed_without,
        without=one.without,
        adjusted=f"{one.adjusted:.3f}",
    )
    return f"{text}; {catalogue.say('fleet.say.same', lang, names=', '.join(one.same))}" if one.same else text
