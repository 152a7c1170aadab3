"""Every expression of a `log_pattern` rule can be reached: whatever it matches holds one of the rule's `contains` literals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, product
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from doctor.detectors.log_pattern import LogPattern
from doctor.rulebook import loader
from doctor.rulebook.model import Rule

_MOST = 4000
"""Samples of one expression; more alternatives than that are cut."""
_OF_CATEGORY = {codes.CATEGORY_DIGIT: "1", codes.CATEGORY_WORD: "w", codes.CATEGORY_SPACE: " ", codes.CATEGORY_NOT_SPACE: "n"}

RULES = [rule for rule in loader.load().rules if "log_pattern" in rule.when]


def _character(choices: list[tuple[Any, Any]]) -> str:
    """One that a class allows; of a negated one a letter that it does not name."""
    named = [_OF_CATEGORY.get(value, "-") if code is codes.CATEGORY else chr(value[0] if code is codes.RANGE else value)
             for code, value in choices if code is not codes.NEGATE]  # fmt: skip
    if choices[0][0] is not codes.NEGATE:
        return named[0]
    return next(letter for letter in "qzQ5" if letter not in named)


def _samples(tree: Any) -> list[str]:
    """The shortest texts that an expression matches, one for each way through its alternatives and optional parts."""
    parts: list[list[str]] = []
    for code, value in tree:
        if code is codes.LITERAL:
            parts.append([chr(value)])
        elif code is codes.IN:
            parts.append([_character(value)])
        elif code is codes.BRANCH:
            parts.append([text for way in value[1] for text in _samples(way)])
        elif code is codes.SUBPATTERN:
            parts.append(_samples(value[3]))
        elif code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            least, _, inner = value
            parts.append([text * max(least, 1) for text in _samples(inner)] + ([""] if least == 0 else []))
        elif code in (codes.ANY, codes.NOT_LITERAL):
            parts.append(["x"])
    return ["".join(way) for way in islice(product(*parts), _MOST)]


def _unreached(detector: LogPattern) -> Iterator[str]:
    for expression in detector.sources[0]:
        blind = re.compile(expression).flags & re.IGNORECASE
        for text in _samples(parser.parse(expression)):
            seen = text.lower() if blind else text
            if not any((literal.lower() if blind else literal) in seen for literal in detector.literals):
                yield f"{expression!r} matches {text!r}"
                break


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_no_alternative_is_behind_a_closed_gate(rule: Rule):
    """A text without any of the literals never reaches the rule, so an alternative without one would be dead."""
    assert not list(_unreached(LogPattern(**rule.when["log_pattern"])))


def test_no_literal_is_made_of_digits_alone() -> None:
    """Lines are told apart by their shape, without digits: such a literal would have to be looked for in every line of every log."""
    told = {literal: rule.id for rule in RULES for literal in rule.params["contains"]}
    assert {literal: rule for literal, rule in told.items() if not re.search(r"[^\W\d_]{2}", literal)} == {}
