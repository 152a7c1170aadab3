"""Which remedies enter the patch: the next one of the guide, or the cheapest set that is predicted to suffice."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from doctor.config.patch import Change
from doctor.planner.prediction import Predictor
from doctor.planner.situation import Situation, advise
from doctor.rulebook.model import Remedy, Rule

MAX_SEARCH_NODES = 250
"""Upper bound of the search; four remedies with all their steps need fewer."""
MIN_SAVING_GIB = 0.1
"""A remedy that saves less is not proposed."""
PRICE = {"neutral": 1.0, "needs a package": 3.0, "changes_training": 10.0}
"""Price of applying a remedy once: three neutral ones cost as much as one that needs a package, ten as much as one that changes the
training. A remedy with a price below 1 removes the cause itself and goes before those that make room."""


class Chosen(msgspec.Struct):
    """The remedies to apply in order, one perhaps several times, with their changes; `enough`: whether they are predicted to suffice."""

    steps: list[tuple[Remedy, tuple[Change, ...]]]
    after: Situation
    enough: bool | None = None


def next_remedy(remedies: Sequence[Remedy], situation: Situation, facts: Mapping[str, Any], rules: Iterable[Rule]) -> Chosen | None:
    """The first remedy in the given order that applies and has not failed before; None if none does."""
    rules = tuple(rules)
    for remedy in remedies:
        advice = advise(remedy, situation, facts, rules)
        after = situation.after(advice.changes)
        if advice.status == "apply" and after.failed_before() is None:
            return Chosen([(remedy, advice.changes)], after)
    return None


def is_direct(remedy: Remedy) -> bool:
    """Whether a remedy removes the cause itself, whatever the estimate of the whole run says."""
    return remedy.price is not None and remedy.price < PRICE["neutral"]


def direct_first(remedies: Sequence[Remedy]) -> list[Remedy]:
    """The given order, with remedies that remove the cause itself first."""
    return sorted(remedies, key=lambda remedy: not is_direct(remedy))


def changes_scope(remedy: Remedy) -> bool:
    """Whether something else is trained, or from something else: 4-bit weights, shorter text, a smaller rank, an adapter."""
    return remedy.effect == "changes_training" and _price(remedy) >= PRICE["changes_training"]


def changes_method(remedy: Remedy) -> bool:
    """Whether another model comes out: an adapter instead of the trained weights."""
    return remedy.effect == "changes_training" and _price(remedy) > PRICE["changes_training"]


def same_training_first(
    remedies: Sequence[Remedy], situation: Situation, facts: Mapping[str, Any], rules: Iterable[Rule], predictor: Predictor
) -> Chosen | None:
    """`cheapest`, but what changes the scope only where it is predicted to fit, and no end of full tuning where the rest fits tightly."""
    rules = tuple(rules)
    found = cheapest(remedies, situation, facts, rules, predictor)
    if found is None or not any(changes_scope(remedy) for remedy, _ in found.steps):
        return found
    same = cheapest([remedy for remedy in remedies if not changes_scope(remedy)], situation, facts, rules, predictor)
    if not found.enough:
        return same
    ends_full_tuning = any(changes_method(remedy) for remedy, _ in found.steps)
    if ends_full_tuning and same is not None and _need(same, predictor) <= predictor.tight:
        return msgspec.structs.replace(same, enough=True)
    return found


def cheapest(
    remedies: Sequence[Remedy], situation: Situation, facts: Mapping[str, Any], rules: Iterable[Rule], predictor: Predictor
) -> Chosen | None:
    """The cheapest sequence of remedies that is predicted to suffice; else the one that needs least memory; None if none saves any.

    Uniform-cost search over sequences: by total price, and at equal prices in the guide's order. Where the search ends at its bound,
    all remedies that save memory are taken together and those that are not needed are left out again, the dearest first.
    """
    rules = tuple(rules)
    if facts.get("phase") == "load":  # what is enough to load must be enough to train as well
        facts = {name: value for name, value in facts.items() if name != "phase"}
    count = itertools.count()
    queue: list[tuple[float, int, Chosen, float]] = [(0.0, next(count), Chosen([], situation), predictor.before)]
    seen = {_key(situation)}
    best: tuple[float, Chosen] | None = None
    while queue and next(count) < MAX_SEARCH_NODES * 20:
        price, _, at, need = heapq.heappop(queue)
        new = bool(at.steps) and at.after.failed_before() is None
        if new and need <= predictor.enough:
            return msgspec.structs.replace(at, enough=True)
        if new and (best is None or need < best[0] - MIN_SAVING_GIB):
            best = need, at
        if len(seen) >= MAX_SEARCH_NODES:
            continue
        for place, remedy in enumerate(remedies):
            advice = advise(remedy, at.after, facts, rules)
            if advice.status != "apply":
                continue
            after = at.after.after(advice.changes)
            freed = predictor.after(after)
            if freed is None or freed > need - MIN_SAVING_GIB or _key(after) in seen:
                continue
            seen.add(_key(after))
            step = Chosen([*at.steps, (remedy, advice.changes)], after)
            heapq.heappush(queue, (price + _price(remedy) + place / 1000, next(count), step, freed))
    every = _everything(remedies, situation, facts, rules, predictor) if len(seen) >= MAX_SEARCH_NODES else None
    if every is not None and (best is None or _need(every, predictor) < best[0] - MIN_SAVING_GIB):
        return every
    return msgspec.structs.replace(best[1], enough=False) if best else None


def _everything(
    remedies: Sequence[Remedy], situation: Situation, facts: Mapping[str, Any], rules: Sequence[Rule], predictor: Predictor
) -> Chosen | None:
    """All remedies that save memory, cheapest first and each as often as it saves; without those that the rest suffices without."""
    at = Chosen([], situation)
    for remedy in sorted(remedies, key=_price):
        while (after := _applied(at, remedy, facts, rules)) is not None and _need(after, predictor) < _need(at, predictor) - MIN_SAVING_GIB:
            at = after
            if _need(at, predictor) <= predictor.enough:
                return _pruned(at, situation, facts, rules, predictor)
    return msgspec.structs.replace(at, enough=False) if at.steps and at.after.failed_before() is None else None


def _pruned(found: Chosen, situation: Situation, facts: Mapping[str, Any], rules: Sequence[Rule], predictor: Predictor) -> Chosen:
    """A sufficient sequence without the steps that it does not need: the dearest are left out first, then those that save least."""
    steps = [remedy for remedy, _ in found.steps]

    def worth(remedy: Remedy) -> tuple[float, float]:
        alone = _applied(Chosen([], situation), remedy, facts, rules)
        return -_price(remedy), predictor.before - (_need(alone, predictor) if alone else predictor.before)

    for remedy in sorted(steps, key=worth):
        rest = [*steps]
        rest.remove(remedy)
        fewer: Chosen | None = Chosen([], situation)
        for other in rest:
            fewer = _applied(fewer, other, facts, rules) if fewer is not None else None
        if fewer is not None and fewer.steps and _need(fewer, predictor) <= predictor.enough and fewer.after.failed_before() is None:
            steps, found = rest, fewer
    return msgspec.structs.replace(found, enough=True)


def _applied(at: Chosen, remedy: Remedy, facts: Mapping[str, Any], rules: Sequence[Rule]) -> Chosen | None:
    """The sequence with one more remedy; None if it does not apply."""
    advice = advise(remedy, at.after, facts, rules)
    return Chosen([*at.steps, (remedy, advice.changes)], at.after.after(advice.changes)) if advice.status == "apply" else None


def _need(at: Chosen, predictor: Predictor) -> float:
    """The predicted peak, GiB; infinite where there is no estimate."""
    need = predictor.after(at.after) if at.steps else predictor.before
    return math.inf if need is None else need


def freed_gib(changes: tuple[Change, ...], situation: Situation, predictor: Predictor) -> float | None:
    """GiB that these changes alone are predicted to free; None if the estimate does not cover such keys."""
    if not any(change.target == "config" for change in changes):
        return None
    after = predictor.after(situation.after(changes))
    return None if after is None else predictor.before - after


def _price(remedy: Remedy) -> float:
    if remedy.price is not None:
        return remedy.price
    if remedy.effect != "neutral":
        return PRICE["changes_training"]
    return PRICE["needs a package" if remedy.requires else "neutral"]


def _key(situation: Situation) -> str:
    return str(sorted(situation.config.items(), key=str))
