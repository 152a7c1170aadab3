"""Which release to install so that a missing name is there, within what LLaMA-Factory allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from doctor.config import knowledge, versions
from doctor.diagnosis.unlisted import api_index, api_lookup
from doctor.diagnosis.unlisted.api_lookup import Found, Range
from doctor.diagnosis.unlisted.api_wanted import Wanted
from doctor.support.release import Version, parse

_DISTRIBUTIONS = {"qwen_vl_utils": "qwen-vl-utils", "liger_kernel": "liger-kernel"}
"""Import names -> names for pip, where they differ."""

_FORK = "kt"
"""A fork of LLaMA-Factory, which is not advised."""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What to install.

    `range` are the releases that have the name, `installed` the version that the log names. `asker` is another indexed package whose
    releases outside `asking` do not ask for the name. `pin` is what the run's LLaMA-Factory (`llamafactory`) allows of the package; where
    that excludes the cure, `fitting` are the releases of LLaMA-Factory that allow it.
    """

    found: Found
    range: Range
    installed: str | None = None
    asker: str | None = None
    asking: Range | None = None
    llamafactory: str | None = None
    pin: str | None = None
    fitting: tuple[str, ...] = ()

    @property
    def too_old(self) -> bool:
        """Whether the installed package is older than the releases with the name (else newer)."""
        if self.installed is not None and parse(self.installed):
            return parse(self.installed) < parse(self.range.first)
        return self.range.after is None

    @property
    def requirement(self) -> str:
        """`transformers>=4.46,<4.50`, within the pin where that leaves something."""
        return f"{_pip_name(self.found.package)}{','.join(self._bounds())}"

    def _bounds(self) -> Iterator[str]:
        lower = parse(self.range.first) if self.range.before is not None else ()
        upper = parse(self.range.after) if self.range.after is not None else ()
        pinned = _parts(self.pin) if self.pin and not self.fitting else []
        lowest = max((parse(number) for sign, number in pinned if sign == ">="), default=())
        highest = min((parse(number) for sign, number in pinned if sign == "<="), default=())
        if lower or lowest:
            yield f">={_text(max(lower, lowest))}"
        if highest and (not upper or highest < upper):
            yield f"<={_text(highest)}"
        elif upper:
            yield f"<{_text(upper)}"

    @property
    def asker_requirement(self) -> str | None:
        """A release of the asking package that does not ask for the name: `peft>=0.18`."""
        if self.asker is None or self.asking is None:
            return None
        name = _pip_name(self.asker)
        if not self.too_old and self.asking.after is not None:
            return f"{name}>={self.asking.after}"
        return f"{name}<{self.asking.first}" if self.too_old and self.asking.before is not None else None


def advise(found: Found, wanted: Wanted, facts: Mapping[str, Any], *, llamafactory: bool) -> Advice | None:
    """The advice; None where the installed release has the name after all, or where nothing tells the direction."""
    told = str(facts.get(f"versions.{found.package}") or "")
    installed = parse(told)
    chosen = _nearest(found.ranges, installed)
    if chosen is None:
        return None
    out = Advice(found=found, range=chosen, installed=told if installed else None)
    if wanted.asker is None:
        out = _with_possible_asker(out, wanted, () if llamafactory else ("llamafactory",))
    elif wanted.asker.package != found.package:
        asking = api_lookup.asks(wanted.asker.package, wanted)
        out = msgspec.structs.replace(out, asker=wanted.asker.package, asking=asking[-1] if asking else None)
    return _within_pins(out, facts) if llamafactory else out


class ModelCode(msgspec.Struct, frozen=True):
    """A class of a model's own code that lacks what its base class got in `first`; `certain`: nothing but that can be meant."""

    package: str
    first: str
    certain: bool


def model_code(found: Found, wanted: Wanted, facts: Mapping[str, Any]) -> ModelCode | None:
    """Whether the class was written before the release that brought the attribute, so that an older release is needed, not a newer.

    What a base class sets up itself can be missing in a class that does not call it. Where the model's own code asks, it is newer instead.
    """
    last = found.ranges[-1] if found.ranges else None
    if not found.inherited or wanted.kind != "attribute" or last is None or last.before is None or last.after is not None:
        return None
    installed = parse(str(facts.get(f"versions.{found.package}") or ""))
    asker = wanted.asker.package if wanted.asker is not None else None
    if asker not in (None, found.package) or (installed and installed < parse(last.first)):
        return None
    return ModelCode(found.package, last.first, certain=asker is not None or bool(installed))


def _with_possible_asker(advice: Advice, wanted: Wanted, without: Sequence[str]) -> Advice:
    """Without a frame: the one indexed package that imports the name in some of its releases, if there is only one."""
    packages = sorted(api_index.load().packages - {advice.found.package, *without})
    askers = {package: asking for package in packages if (asking := api_lookup.asks(package, wanted))}
    if len(askers) != 1 or (next(iter(askers.values()))[-1].before is None and next(iter(askers.values()))[-1].after is None):
        return advice
    ((package, asking),) = askers.items()
    return msgspec.structs.replace(advice, asker=package, asking=asking[-1])


def _nearest(ranges: Sequence[Range], installed: Version) -> Range | None:
    """The range to go to: the next one above the installed release, else the last below it. Without a release the last of all."""
    if any(one.holds(installed) for one in ranges) and installed:
        return None
    if not installed:
        return ranges[-1] if ranges else None
    above = [one for one in ranges if installed < parse(one.first)]
    return next(iter([*above, *ranges[-1:]]), None)


def _within_pins(advice: Advice, facts: Mapping[str, Any]) -> Advice:
    """The advice with what the run's LLaMA-Factory allows; of an unknown one, with those that allow the cure if not all do."""
    package = advice.found.package
    if package not in _pinned_packages():
        return advice
    changes = knowledge.history("pins", package)
    possible = [name for name in versions.possible(facts) if name != _FORK]
    fits = [name for name in knowledge.releases() if name != _FORK and _overlap(knowledge.at(changes, name), advice.range)]
    known = possible[0] if len(possible) == 1 else None
    if known is not None and known in fits:
        return msgspec.structs.replace(advice, llamafactory=known, pin=knowledge.at(changes, known))
    if known is None and set(possible) <= set(fits):
        return advice
    return msgspec.structs.replace(advice, llamafactory=known, pin=knowledge.at(changes, known) if known else None, fitting=tuple(fits))


def _pinned_packages() -> frozenset[str]:
    return knowledge.names_at("pins", knowledge.newest()) | knowledge.names_at("pins", "0.9.4")


def _overlap(pin: str | None, range_: Range) -> bool:
    """Whether some release of the range meets the pin; without a pin all do. One without an upper bound speaks for its time only."""
    bounds = _parts(pin or "")
    lowest = max((parse(number) for sign, number in bounds if sign == ">="), default=())
    highest = min((parse(number) for sign, number in bounds if sign == "<="), default=lowest)
    lower = parse(range_.first) if range_.before is not None else ()
    upper = parse(range_.after) if range_.after is not None else ()
    return (not highest or not lower or lower <= highest) and (not upper or not lowest or lowest < upper)


def _parts(pin: str) -> list[tuple[str, str]]:
    return [(part[:2], part[2:]) for part in pin.split(",") if part]


def _pip_name(package: str) -> str:
    return _DISTRIBUTIONS.get(package, package)


def _text(version: Version) -> str:
    return ".".join(map(str, version))
