"""Which detectors an event is for: by its kind and, for text, by the literals that stand in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from doctor.core.events import Event
from doctor.core.run import Run
from doctor.detectors.base import Detector
from doctor.rulebook.findings import Match
from doctor.support.literal_search import MultiSearch


class Subscription(NamedTuple):
    """A detector with its bound `feed`. With 13 detector classes at one call site the lookup of `feed` costs more than some of them."""

    key: bytes
    feed: Callable[[Event, Run], Iterator[Match]]
    detector: Detector


_MAX_REMEMBERED = 4096
"""Sets of literals whose detectors are remembered: most lines of a log have the same few."""


class LiteralRouter:
    """Finds the detectors of text that can match a line."""

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        self._subscriptions = subscriptions
        self._of_literal: dict[str, list[int]] = {}
        self._always = [place for place, subscription in enumerate(subscriptions) if not subscription.detector.literals]
        for place, subscription in enumerate(subscriptions):
            for literal in subscription.detector.literals:
                self._of_literal.setdefault(literal, []).append(place)
        self._literals = MultiSearch(self._of_literal)
        self._of_found: dict[tuple[str, ...], list[Subscription]] = {}

    def matching_detectors(self, text: str) -> list[Subscription]:
        """Those with a literal in the text and those without literals, in the order of the rules."""
        found = tuple(self._literals.find(text))
        known = self._of_found.get(found)
        if known is None:
            if len(self._of_found) >= _MAX_REMEMBERED:
                self._of_found.clear()
            places = {place for literal in found for place in self._of_literal[literal]}
            known = self._of_found[found] = [self._subscriptions[place] for place in sorted(places.union(self._always))]
        return known
