"""The releases that have a missing name, in words, and what to install, as remedies with a command that can be pasted."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.config import knowledge
from doctor.diagnosis.unlisted.api_advice import Advice, ModelCode
from doctor.diagnosis.unlisted.api_lookup import Found
from doctor.diagnosis.unlisted.api_wanted import Wanted
from doctor.diagnosis.unlisted.places import REMOTE_CODE, SCRIPT
from doctor.rulebook.model import FIRST, Remedy
from doctor.support.texts import Text
from doctor.words import catalogue


def told(advice: Advice, wanted: Wanted) -> Text:
    """Which releases have the name, which is installed, and who asks for it."""
    return catalogue.concatenate([_releases(advice, wanted), *_installed(advice), *_asked(advice, wanted)])


def told_never(found: Found, wanted: Wanted) -> Text:
    """That no release has it."""
    values = {"package": found.package, "oldest": found.oldest, "newest": found.newest, "what": _what(wanted)}
    if found.spelled:
        return catalogue.text("releases.never_spelled", spelled=found.spelled, **values)
    return catalogue.text("releases.never", **values)


def remedies(advice: Advice) -> list[Remedy]:
    """What to install, the likeliest first."""
    own = Remedy(
        id=f"install-{advice.found.package}", text=_install(advice), effect="manual", price=FIRST, command=_pip(advice.requirement)
    )
    other = _asker_remedy(advice)
    if other is None:
        return [own]
    return [other, own] if not advice.too_old else [own, other]


def remedies_never(found: Found, wanted: Wanted) -> list[Remedy]:
    """To spell it right, or to load the model's own code where the name is a class of a model; else nothing."""
    if found.spelled:
        text = catalogue.text("releases.spelling", spelled=found.spelled, name=wanted.name)
        return [Remedy(id="spelling", text=text, effect="manual", price=FIRST)]
    if wanted.name.endswith(("Tokenizer", "TokenizerFast", "Processor")):
        return [Remedy(id="remote-code", text=catalogue.text("releases.remote_code"), effect="manual", price=FIRST)]
    return []


def told_of_model(older: ModelCode, wanted: Wanted) -> Text:
    """Since when the base class has it, and where nothing else can be meant that the class is the model's own."""
    added = catalogue.text("releases.added", package=older.package, what=_what(wanted), first=older.first)
    if not older.certain:
        return added
    return catalogue.concatenate([added, catalogue.text("releases.of_model", package=older.package, owner=wanted.owners[0])])


def remedy_for_model(older: ModelCode, wanted: Wanted) -> Remedy:
    """The last release before it; where the installed one may be older already, the other way as well."""
    form = "install_for_model" if older.certain else "install_for_model_or_newer"
    text = catalogue.text(f"releases.{form}", package=older.package, first=older.first, owner=wanted.owners[0])
    command = _pip(f"{older.package}<{older.first}")
    return Remedy(id=f"install-{older.package}", text=text, effect="manual", price=FIRST, command=command)


def remedy_required(package: str, requirement: str) -> Remedy:
    """To install what a message asks for."""
    text = catalogue.text("releases.install_required", package=package)
    return Remedy(id=f"install-{package.lower()}", text=text, effect="manual", price=FIRST, command=_pip(requirement))


def remedy_llamafactory(package: str, version: str, first: str) -> Remedy:
    """To keep the installed version, with the first LLaMA-Factory that allows it."""
    text = catalogue.text("releases.update_llamafactory", package=package, version=version, first=first)
    command = _pip(f"llamafactory>={first}") if first[:1].isdigit() else "pip install git+https://github.com/hiyouga/LLaMA-Factory.git"
    return Remedy(id="newer-llamafactory", text=text, effect="manual", price=FIRST, command=command)


def remedy_back(package: str, requirement: str) -> Remedy:
    """To go back to the range that the installed LLaMA-Factory asks for."""
    text = catalogue.text("releases.install_back", package=package)
    return Remedy(id=f"install-{package.lower()}", text=text, effect="manual", price=FIRST, command=_pip(requirement))


def _releases(advice: Advice, wanted: Wanted) -> Text:
    range_ = advice.range
    values = {"package": advice.found.package, "what": _what(wanted), "first": range_.first, "last": range_.last}
    if range_.after is None:
        return catalogue.text("releases.added", **values)
    if range_.before is None or (advice.installed and not advice.too_old):
        return catalogue.text("releases.removed", after=range_.after, **values)
    return catalogue.text("releases.between", **values)


def _what(wanted: Wanted) -> Text:
    form = "name" if wanted.kind == "name" else wanted.kind
    return catalogue.text(f"releases.{form}", name=wanted.name, owner=wanted.owners[0] if wanted.owners else "")


def _installed(advice: Advice) -> Iterator[Text]:
    if advice.installed:
        yield catalogue.text("releases.installed", installed=advice.installed)


def _asked(advice: Advice, wanted: Wanted) -> Iterator[Text]:
    asker = wanted.asker
    if asker is None and advice.asker is not None and advice.asking is not None:
        first, last = advice.asking.first, advice.asking.last
        form = "imported_until" if advice.asking.before is None else "imported_since" if advice.asking.after is None else "imported_between"
        yield catalogue.text(f"releases.{form}", asker=_shown(advice.asker), first=first, last=last)
    if asker is None or asker.package == advice.found.package:
        return
    if asker.package == REMOTE_CODE:
        yield catalogue.text("releases.asked_by_model", module=asker.module)
    elif asker.package != SCRIPT:
        yield catalogue.text("releases.asked_by_package", asker=_shown(asker.package))
    elif asker.module and not asker.module.startswith("<"):
        yield catalogue.text("releases.asked_by_script", module=asker.module)


def _install(advice: Advice) -> Text:
    range_ = advice.range
    values = {"package": advice.found.package, "first": range_.first, "last": range_.last}
    if advice.pin and not advice.fitting:
        return catalogue.text("releases.install_pinned", llamafactory=advice.llamafactory, **values)
    if range_.after is None:
        text = catalogue.text("releases.install_newer", **values)
    elif range_.before is None:
        text = catalogue.text("releases.install_older", after=range_.after, **values)
    else:
        text = catalogue.text("releases.install_between", **values)
    return catalogue.concatenate([text, *_limits(advice)])


def _limits(advice: Advice) -> Iterator[Text]:
    """What LLaMA-Factory's pins say to it, where they stand in the way."""
    if not advice.fitting:
        return
    first, last = advice.fitting[0], advice.fitting[-1]
    newest = last in ("main", knowledge.newest())
    fitting = catalogue.text("releases.llamafactory_since" if newest else "releases.llamafactory_range", first=first, last=last)
    values = {"package": advice.found.package, "fitting": fitting}
    if advice.llamafactory:
        pin = ",".join(part for part in (advice.pin or "").split(",") if not part.startswith("!="))
        yield catalogue.text("releases.llamafactory_known", llamafactory=advice.llamafactory, pin=pin, **values)
    else:
        yield catalogue.text("releases.llamafactory_unknown", **values)


def _asker_remedy(advice: Advice) -> Remedy | None:
    requirement = advice.asker_requirement
    if requirement is None or advice.asking is None or advice.asker is None:
        return None
    form = "asker_older" if advice.too_old else "llamafactory_newer" if advice.asker == "llamafactory" else "asker_newer"
    version = advice.asking.first if advice.too_old else advice.asking.after or ""
    text = catalogue.text(f"releases.{form}", asker=_shown(advice.asker), version=version)
    return Remedy(id=f"install-{advice.asker}", text=text, effect="manual", price=FIRST, command=_pip(requirement))


def _shown(package: str) -> str:
    return "LLaMA-Factory" if package == "llamafactory" else package


def _pip(requirement: str) -> str:
    """The command, quoted so that POSIX shells and Windows' own take it alike."""
    return f'pip install "{requirement}"'
