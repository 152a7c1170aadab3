"""An origin in words: which package raises a message, in which releases, and where in it."""

from __future__ import annotations

from collections.abc import Sequence

from doctor.diagnosis.unlisted.origins import Origin, Site
from doctor.support.texts import Text
from doctor.words import catalogue


def sentence(origin: Origin) -> Text:
    """One sentence about the origin. Where several packages have the message, or another one raised it, it only names them."""
    packages = list(dict.fromkeys(site.package for site in origin.sites))
    if origin.elsewhere:
        return catalogue.text("origins.elsewhere", packages=", ".join(packages))
    if len(packages) > 1:
        return catalogue.text("origins.packages", packages=", ".join(packages))
    form = ("function" if origin.module else "function_of_several") if origin.function else "module" if origin.module else "package"
    place = {"package": packages[0], "versions": versions(origin.sites), "function": origin.function, "module": origin.module}
    return catalogue.text(f"origins.{form}", **place)


def versions(sites: Sequence[Site]) -> Text:
    """The releases that have any of these places of one package."""
    first = min(sites, key=lambda site: site.first)
    last = max(sites, key=lambda site: site.last)
    known = {"first": first.first.name, "last": last.last.name}
    if first.oldest:
        return catalogue.text("origins.always" if last.newest else "origins.until", **known)
    if last.newest:
        return catalogue.text("origins.since", **known)
    if first.first == last.last:
        return Text(last.last.name, last.last.name, last.last.name)
    return catalogue.text("origins.between", **known)
