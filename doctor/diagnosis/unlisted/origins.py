"""Where an exception comes from: the package, function and releases whose source has a message like its own (docs/origins.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from doctor.diagnosis.unlisted import origin_index
from doctor.diagnosis.unlisted.message_match import UNKNOWN, Fit, fit, normalised
from doctor.diagnosis.unlisted.origin_causes import label_of
from doctor.diagnosis.unlisted.origin_index import Index, StoredTemplate

MIN_BITS = 22
"""Bits that the words of a template must tell unless the frame that raised is at its place: "Could not find {} in {}" has 16.

Of 22,103 messages of 115 packages that are not in the index, two have an origin above it by chance, the others that have one are copies
(benchmarks/origins.py --foreign).
"""
MIN_BITS_OWN = 16
"""The same for messages of LLaMA-Factory, whose runs these are."""
MIN_BITS_PART = 30
"""The same where the message has other text too or is cut off."""
MIN_BITS_OTHER_CLASS = 40
"""The same where the exception's class is another one."""
_OWN = "llamafactory"
_MAX_SITES = 40
"""Places of one message that are kept: transformers has a copy of some messages in every model."""


class Release(msgspec.Struct, frozen=True, order=True):
    """A release of a package: its place among those indexed, and its name, without the patch where only one patch was indexed."""

    place: int
    name: str


class Site(msgspec.Struct, frozen=True):
    """A place that raises: `module` is a path (`transformers/trainer.py`), `function` has its class (`Trainer.train`).

    `first` and `last` are the oldest and newest release with the place. `oldest` and `newest`: whether no older or newer one was indexed.
    """

    package: str
    module: str
    function: str
    exception: str
    first: Release
    last: Release
    oldest: bool
    newest: bool


class Origin(msgspec.Struct, frozen=True):
    """Where a message comes from. `sites` has all places that raise it, the likeliest first; `template` shows unknown text as `{}`.

    `confidence` (0..1) is that of the origin, from how much the template tells and what the traceback says. `cause` is that of its
    places that have one, None where they have several; `reviewed`: a person read this very message, not only labelled its module.
    `elsewhere`: the frame that raised is in another package, which copied the message or raised it again.
    """

    sites: tuple[Site, ...]
    template: str
    bits: int
    confidence: float
    cause: str | None = None
    reviewed: bool = False
    elsewhere: bool = False

    @property
    def package(self) -> str:
        """The package, empty if several packages raise the message."""
        return self._common("package")

    @property
    def module(self) -> str:
        """The module's path, empty if several modules do."""
        return self._common("module")

    @property
    def function(self) -> str:
        """The function without its class, empty if functions of different names do."""
        names = {site.function.rpartition(".")[2] for site in self.sites}
        return names.pop() if len(names) == 1 else ""

    def _common(self, field: str) -> str:
        values = {getattr(site, field) for site in self.sites}
        return str(values.pop()) if len(values) == 1 else ""


Frame = Literal["same", "package", "other", "unknown"]
"""What the frame that raised says of a place: it is there; in its package; in another indexed package; no frame of an indexed package."""


class _Candidate(NamedTuple):
    template: StoredTemplate
    fit: Fit
    frame: Frame
    same_class: bool
    sites: tuple[Site, ...]

    @property
    def bits(self) -> float:
        return self.template.bits * self.fit.share

    @property
    def rank(self) -> tuple[bool, bool, bool, float, float]:
        """What makes it the likelier origin: the frame, then how much of the message the template accounts for."""
        known = len(self.template.text) * self.fit.share
        return (self.frame == "same", self.fit.grade == "whole", self.same_class, self.bits, known)


def find(
    exception: str, message: str, frame_package: str | None = None, frame_function: str | None = None, *, index: Index | None = None
) -> Origin | None:
    """The origin of an exception, None if no template fits or those that do say too little.

    `exception` is the class as logged, qualified or not. The frame is the innermost one of the traceback: its package's import name and
    its function. `index` is another one than the shipped. Raises OSError or msgspec.MsgspecError if the index cannot be read.
    """
    index = index or origin_index.load()
    text = _unquoted(normalised(message)) if exception.endswith("KeyError") else normalised(message)
    name = exception.rpartition(".")[2]
    found = [
        candidate
        for stored in index.candidates(text)
        if (fitted := fit(stored.text, text)) is not None
        for candidate in [_candidate(index, stored, fitted, name, frame_package, frame_function)]
        if _tells_enough(candidate)
    ]
    best = max(found, key=lambda candidate: candidate.rank, default=None)
    return _origin(index, best, [candidate for candidate in found if candidate.rank == best.rank]) if best is not None else None


def _candidate(index: Index, stored: StoredTemplate, fitted: Fit, name: str, package: str | None, function: str | None) -> _Candidate:
    """The places of a template that agree best with class and frame."""
    sites = [_site(index, stored, number) for number in range(len(stored.sites))]
    same_class = [site for site in sites if site.exception in (name, "")]
    sites = same_class or sites
    frame: Frame = "unknown"
    if package is not None and package in index.head.versions:
        inside = [site for site in sites if site.package == package]
        at = [site for site in inside if site.function.rpartition(".")[2] in (function, "")]
        frame = "same" if at and function else "package" if inside else "other"
        sites = at or inside or sites
    return _Candidate(stored, fitted, frame, bool(same_class), tuple(sites))


def _tells_enough(candidate: _Candidate) -> bool:
    if candidate.frame == "same":
        return True
    own = any(site.package == _OWN for site in candidate.sites)
    needed = MIN_BITS_PART if candidate.fit.grade != "whole" else MIN_BITS_OWN if own else MIN_BITS
    if not candidate.same_class or candidate.frame == "other":
        needed = max(needed, MIN_BITS_OTHER_CLASS)
    return candidate.bits >= needed


def _origin(index: Index, best: _Candidate, equal: Iterable[_Candidate]) -> Origin:
    """The places of the best templates, packages in the order of the index: the copies that others make of a message come last."""
    order = list(index.head.versions).index
    places = sorted(
        {site for candidate in equal for site in candidate.sites}, key=lambda site: (order(site.package), site.module, site.function)
    )
    sites = tuple(places[:_MAX_SITES])
    template = best.template.text.replace(UNKNOWN, "{}")
    found = [label for site in sites if (label := label_of(site.module, site.function, site.exception, template)) is not None]
    causes = {label.cause for label in found}
    cause = causes.pop() if len(causes) == 1 else None
    reviewed = cause is not None and all(label.says for label in found)
    return Origin(sites, template, best.template.bits, _confidence(best), cause, reviewed, best.frame == "other")


def _confidence(candidate: _Candidate) -> float:
    """From the words that the template shares with the message; a frame at the same place is nearly proof."""
    if candidate.frame == "same":
        return 0.98
    sure = 0.6 if candidate.bits < 25 else 0.75 if candidate.bits < 40 else 0.9
    return sure - (0.15 if candidate.frame == "other" or not candidate.same_class else 0.0)


def _site(index: Index, stored: StoredTemplate, number: int) -> Site:
    place = stored.sites[number]
    module = index.head.modules[place.module]
    package = module.partition("/")[0]
    names = index.release_names(package)
    return Site(
        package=package,
        module=module,
        function=place.function,
        exception=index.head.exceptions[place.exception],
        first=Release(place.first, names[place.first]),
        last=Release(place.last, names[place.last]),
        oldest=place.first == 0,
        newest=place.last == len(names) - 1,
    )


def _unquoted(text: str) -> str:
    """A KeyError prints its message as a literal."""
    return text[1:-1].replace("\\n", " ").replace("\\'", "'") if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
