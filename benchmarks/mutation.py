"""Mutation testing of rules: make every small mutant of each rule and count how many its own examples kill.

Mutants drop an expression of `any_of`, `none_of` or `frames`; drop or negate a line of `where`; drop an alternative of `any`; drop a
limit (`phase`, `exception`, `cut_off`, `ascending`). `fix` examples are ignored, as they test the planner.

    python benchmarks/mutation.py [--show] [FAMILY/NAME-PREFIX ...]
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.core.events import Event
from doctor.detectors.registry import DETECTORS
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.rule_examples import forms
from doctor.rulebook import loader
from doctor.rulebook.model import Rule

LISTS = ("any_of", "none_of", "frames")
"""Parameters from which a mutant drops an expression."""

LIMITS = ("phase", "exception", "cut_off", "ascending")
"""Parameters that a mutant drops."""


def mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """(description, mutant) for every mutation of a rule."""
    params = rule.params
    for name in LISTS:
        for place, pattern in enumerate(params.get(name) or ()):
            rest = [value for other, value in enumerate(params[name]) if other != place]
            if rest or name == "none_of":
                yield f"{name} without {pattern!r}", _with_params(rule, {**params, name: rest})
    for name in LIMITS:
        if params.get(name) is not None:
            yield f"without {name}", _with_params(rule, {key: value for key, value in params.items() if key != name})
    for what, where in conditions(rule.where):
        yield what, msgspec.structs.replace(rule, where=where)


def conditions(condition: Any) -> Iterator[tuple[str, Any]]:
    """The condition with a line dropped or negated, at any depth."""
    if isinstance(condition, list):
        for place, part in enumerate(condition):
            rest = condition[:place] + condition[place + 1 :]
            if rest:
                yield f"without the alternative {part}", rest
            for what, changed in conditions(part):
                yield what, [*condition[:place], changed, *condition[place + 1 :]]
    elif isinstance(condition, Mapping):
        for key, wanted in condition.items():
            others = {other: value for other, value in condition.items() if other != key}
            yield f"without {key}: {wanted}", others
            yield f"not {key}: {wanted}", {"all": [others, {"not": {key: wanted}}]}
            if key in ("any", "all", "not"):
                for what, changed in conditions(wanted):
                    yield what, {**others, key: changed}


def _with_params(rule: Rule, params: Mapping[str, Any]) -> Rule:
    return msgspec.structs.replace(rule, when={rule.detector: dict(params)})


class Examples:
    """A rule's examples as events, parsed once."""

    def __init__(self, rule: Rule) -> None:
        self.match = [(forms(example), example.facts) for example in rule.examples.match]
        self.no_match = [forms(example) for example in rule.examples.no_match]

    def keep(self, rule: Rule) -> bool:
        """Whether `rule` passes all examples, with the facts they require."""
        return all(any(fires(rule, form, facts) for form in example) for example, facts in self.match) and not any(
            fires(rule, form, {}) for example in self.no_match for form in example
        )


def fires(rule: Rule, events: list[Event], facts: Mapping[str, Any]) -> bool:
    """Whether the rule alone fires on these events, with these facts."""
    engine = Engine([rule], DETECTORS)
    for event in events:
        engine.feed(event)
    return any(all(str(finding.first.facts.get(name)) == str(value) for name, value in facts.items()) for finding in engine.findings())


def survivors(rule: Rule) -> tuple[int, list[str]]:
    """Number of mutants, and the mutants that survive the examples."""
    examples = Examples(rule)
    alive, count = [], 0
    for what, mutant in mutants(copy.deepcopy(rule)):
        count += 1
        try:
            if examples.keep(mutant):
                alive.append(what)
        except (TypeError, ValueError):
            continue  # an invalid mutant counts as killed
    return count, alive


def main() -> int:
    """Print the share of mutants killed per family; exit code 1 below 90 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefixes", nargs="*")
    parser.add_argument("--show", action="store_true", help="print every surviving mutant")
    given = parser.parse_args()
    totals: dict[str, list[int]] = {}
    for rule in loader.load(detectors=DETECTORS).rules:
        if given.prefixes and not rule.id.startswith(tuple(given.prefixes)):
            continue
        count, alive = survivors(rule)
        total = totals.setdefault(rule.family, [0, 0])
        total[0] += count
        total[1] += count - len(alive)
        for what in alive if given.show else ():
            print(f"{rule.id}: {what}")
    for family, (count, killed) in totals.items():
        print(f"{family:12} {killed:5} of {count:5} killed ({killed / max(count, 1):.1%})")
    count, killed = (sum(column) for column in zip(*totals.values(), strict=True))
    print(f"{'all':12} {killed:5} of {count:5} killed ({killed / max(count, 1):.1%})")
    return int(killed < 0.9 * count)


if __name__ == "__main__":
    sys.exit(main())
