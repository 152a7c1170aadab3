"""Versions of the installed packages: the only parser, the versions that a run reports, and those that it may have."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from doctor.config import knowledge
from doctor.support import release

Version = release.Version
"""Release numbers: 4.57.1 is (4, 57, 1)."""

NEWEST: dict[str, Version] = {"llamafactory": (0, 9, 5), "transformers": (5, 6, 0)}
"""The newest release that rules/options.yaml was generated from, with its newest transformers; assumed for a run that reports none."""

UNRELEASED: dict[str, Version] = {"main": (0, 9, 6), "kt": (0, 9, 6, 1)}
"""Versions of LLaMA-Factory after its newest release; main calls itself 0.9.6.dev0."""

OLDEST_USUAL = "0.9.3"
"""Of a run that tells nothing, this release (June 2025) or a newer one is taken as possible."""

PARSER_LINE = "llamafactory.parser_line"
"""Fact: the line of hparams/parser.py that wrote `Process rank: ...`; it differs from release to release."""


def parse(text: str) -> Version:
    """As `release.parse`; `main` and `kt` are UNRELEASED."""
    return release.parse(text) or UNRELEASED.get(text, ())


def reported(facts: Mapping[str, Any], package: str) -> Version:
    """The version in the fact `versions.<package>`; () if the run does not report it."""
    return parse(str(facts.get(f"versions.{package}") or ""))


def versions_of(facts: Mapping[str, Any]) -> dict[str, Version]:
    """LLaMA-Factory's and transformers' versions: reported, else told by the log, else NEWEST.

    An older LLaMA-Factory without a reported transformers gets the newest transformers it allows (its setup.py).
    """
    known = {name: reported(facts, name) for name in NEWEST}
    if not known["llamafactory"] and (facts.get(PARSER_LINE) or known["transformers"]):
        released = [name for name in possible(facts) if name not in UNRELEASED]
        known["llamafactory"] = parse(released[-1]) if released else UNRELEASED["main"]
    if known["llamafactory"] and not known["transformers"] and known["llamafactory"] != NEWEST["llamafactory"]:
        known["transformers"] = _transformers_for(known["llamafactory"])
    return {name: version or NEWEST[name] for name, version in known.items()}


def possible(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The versions of LLaMA-Factory that the run may have, oldest first: one if it is reported, else what the log and transformers allow.

    A development version may hold what the release before it had, or what the next one brought.
    """
    text = str(facts.get("versions.llamafactory") or "")
    version = parse(text)
    if version:
        return _named(version, text)
    line = facts.get(PARSER_LINE)
    if isinstance(line, int) and (found := _by_parser_line(line)):
        return found
    usual = knowledge.releases()[knowledge.releases().index(OLDEST_USUAL) :]
    transformers = reported(facts, "transformers")
    if not transformers:
        return usual
    return tuple(name for name in knowledge.releases() if _allows(_pin(name), transformers)) or usual


@functools.cache
def _by_parser_line(line: int) -> tuple[str, ...]:
    """The versions whose parser logs at this line; of a checkout between two releases both of them: the file has only grown."""
    changes = knowledge.history("log_lines", "hparams.parser")
    lines = {name: knowledge.at(changes, name) for name in knowledge.releases()}
    exact = tuple(name for name, number in lines.items() if number == line)
    grown = [name for name in lines if name != "kt"]
    between = ((old, new) for old, new in pairwise(grown) if lines[old] < line < lines[new])
    return exact or next(between, ())


def assumed(facts: Mapping[str, Any]) -> str:
    """The known version of LLaMA-Factory that `versions_of` means."""
    version = versions_of(facts)["llamafactory"]
    return _named(version, "main" if version == UNRELEASED["main"] else "")[-1]


def value_at(changes: knowledge.Changes, version: Version) -> Any:
    """What held in this version of a package, by its history; None where it does not exist there."""
    value = None
    for since, new in changes:
        if parse(since) > version:
            break
        value = new
    return value


def _named(version: Version, text: str) -> tuple[str, ...]:
    """The known versions that a reported one means; one between two releases is taken for the older of them."""
    names = knowledge.releases()
    if version == UNRELEASED["main"] and text != "main":
        return tuple(UNRELEASED)
    before = [name for name in names if parse(name) <= version]
    if not before:
        return names[:1]
    return tuple(before[-2:]) if ".dev" in text else (before[-1],)


def _pin(name: str) -> str:
    return str(knowledge.at(knowledge.history("pins", "transformers"), name) or "")


@functools.cache
def _transformers_for(version: Version) -> Version:
    """The newest transformers that a LLaMA-Factory allows; where it sets no upper bound, the oldest."""
    pin = _pin(_named(version, "")[-1])
    bounds = {part[:2]: parse(part[2:]) for part in pin.split(",") if part[:2] in ("<=", ">=")}
    return bounds.get("<=") or bounds.get(">=") or NEWEST["transformers"]


def releases_that_allow(package: str, text: str, refused_by: str) -> tuple[str, ...]:
    """The later releases of LLaMA-Factory whose pin holds this version of a package.

    () if `refused_by` (`>=4.45.0,<=4.52.4`) is the pin of no release: another program asks.
    """
    changes = knowledge.history("pins", package)
    version = parse(text)
    pins = [(name, str(knowledge.at(changes, name) or "")) for name in knowledge.releases() if name != "kt"]
    refusing = [place for place, (_, pin) in enumerate(pins) if set(pin.split(",")) == set(refused_by.split(","))]
    if not version or not refusing:
        return ()
    return tuple(name for name, pin in pins[refusing[-1] + 1 :] if pin and _allows(pin, version))


def _allows(pin: str, version: Version) -> bool:
    """Whether a version meets a requirement such as `>=4.55.0,<=5.8.0,!=5.6.0`; without an upper bound nothing from 5.0 on does."""
    if "<=" not in pin and version >= (5,):
        return False
    tests = {"<=": version.__le__, ">=": version.__ge__, "!=": version.__ne__}
    return all(tests[part[:2]](parse(part[2:])) for part in pin.split(",") if part[:2] in tests)


def shown(package: str, version: Version) -> str:
    """`LLaMA-Factory 0.9.4`, `LLaMA-Factory main`, `transformers 5.6.0`."""
    if package != "llamafactory":
        return f"{package} {'.'.join(map(str, version))}"
    name = next((name for name, number in UNRELEASED.items() if number == version), None)
    return knowledge.shown(name) if name == "kt" else f"LLaMA-Factory {name or '.'.join(map(str, version))}"
