"""An explanation of a difference between runs, in sentences."""

from __future__ import annotations

from doctor.fleet.attribution.changes import Attribution, Candidate
from doctor.words.fleet import say


def verdict(found: Attribution, lang: str) -> str:
    """The answer in one sentence, empty where a guilty change was found: the suspects speak for themselves."""
    return "" if found.verdict == "found" else say(found.verdict, lang)


def candidate(one: Candidate, lang: str) -> str:
    """A candidate in one sentence."""
    text = say(
        "suspect",
        lang,
        key=one.key,
        question=one.question,
        failed_with=one.failed_with,
        with_=one.with_,
        failed_without=one.failed_without,
        without=one.without,
        adjusted=f"{one.adjusted:.3f}",
    )
    return f"{text}; {say('same', lang, names=', '.join(one.same))}" if one.same else text
