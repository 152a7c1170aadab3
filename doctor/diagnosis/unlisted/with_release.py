"""A failure over a name that a package does not have, told with the releases that have it and what to install."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from doctor.config.versions import releases_that_allow
from doctor.core.events import Crash
from doctor.core.run import Run
from doctor.diagnosis.unlisted import api_text, telling
from doctor.diagnosis.unlisted.answer import raised
from doctor.diagnosis.unlisted.api_advice import advise, model_code
from doctor.diagnosis.unlisted.api_lookup import Found, look_up
from doctor.diagnosis.unlisted.api_required import required_in
from doctor.diagnosis.unlisted.api_wanted import Wanted, wanted_in
from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.learned import is_open
from doctor.planner.launching import is_llamafactory
from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.findings import Finding, RankedFinding, root_of, with_root
from doctor.rulebook.model import Body, Remedy
from doctor.support.texts import Text

_CAUSES = ("hf_stack_api_break", "package_version_conflict", "model_architecture_unsupported")
"""Causes of rules that say that versions do not fit each other, without saying which would."""
_BY_RELEASE = "hf_stack_api_break"
"""The cause of an unlisted failure over a name that only other releases have."""
_CONFIDENCE = 0.75
"""The releases are facts; that the name is the reason, and not a broken or shadowed installation, is likely."""
OF_VERSIONS = ("versions-of-the-release", "other-release", "older-package", "newer-llamafactory", "version-of-the-model", "upgrade-both")
"""Remedies that speak of versions in general."""
_GENERIC = (*OF_VERSIONS, "confirm")
"""Those that a known release makes superfluous."""
_SWITCH = "skip-version-check"
"""The remedy of environment/package-version-pinned that lets LLaMA-Factory start with a release outside its pins."""
_OF_MODELS = ("Tokenizer", "TokenizerFast", "Processor")


def with_release(ranked: Sequence[RankedFinding], run: Run, seen: LastEvents) -> list[RankedFinding]:
    """The findings; the first, if it is about a name that some releases lack, with the release to install as its first remedy."""
    root = root_of(ranked)
    if root is None or not (root.rule.cause in _CAUSES or is_open(root)):
        return list(ranked)
    for features in candidates(root, run, seen):
        finding = _told(root, features, run)
        if finding is not None:
            return with_root(ranked, _with_switch(finding, ranked[1:]))
    required = _required(root, seen)
    return list(ranked) if required is None else with_root(ranked, required)


def _with_switch(finding: Finding, others: Sequence[RankedFinding]) -> Finding:
    """The finding with the switch that turns off a version check, where such a check refused the release that has the name."""
    switches = [remedy for other in others for remedy in other.finding.rule.remedies if remedy.id == _SWITCH]
    remedies = finding.rule.remedies
    if not switches or not remedies:
        return finding
    rule = msgspec.structs.replace(finding.rule, remedies=[remedies[0], switches[0], *remedies[1:]])
    return msgspec.structs.replace(finding, rule=rule)


def _required(finding: Finding, seen: LastEvents) -> Finding | None:
    """The finding with the release that its own message asks for as its first remedy."""
    texts = sorted((piece.text for piece in finding.evidence), key=lambda text: not text.lstrip().startswith("llamafactory "))
    facts = finding.first.facts
    if facts.get("requirer") and facts.get("requirement"):
        texts.insert(0, f"requires {facts['requirement']}, but you have")
    required = next((found for text in texts if (found := required_in(text)) is not None), None)
    if required is None or is_open(finding):
        return None
    first = _ways_out(required, str(facts.get("found") or ""), of_a_stage=any(map(_asks_for_a_stage, seen.tracebacks)))
    return finding.led_by(*first, without=_GENERIC)


def _asks_for_a_stage(chain: Sequence[Crash]) -> bool:
    """Whether the check is one of a single stage (PPO's of trl), which no release of LLaMA-Factory lifts with its own pins."""
    return any("train/ppo" in frame.file.replace("\\", "/") for crash in chain for frame in crash.frames)


def _ways_out(required: tuple[str, str], found: str, *, of_a_stage: bool) -> list[Remedy]:
    """The range that a check asks for; before it, where the installed package is newer than LLaMA-Factory allows, a newer LLaMA-Factory.

    Going back serves nobody whose model needs the newer package, a newer LLaMA-Factory serves older models as well.
    """
    package, requirement = required
    installed = found.removeprefix(package).lstrip("= ")
    allowing = releases_that_allow(package, installed, requirement.removeprefix(package))
    if not allowing or of_a_stage:
        return [api_text.remedy_required(package, requirement)]
    return [api_text.remedy_llamafactory(package, installed, allowing[0]), api_text.remedy_back(package, requirement)]


def candidates(finding: Finding, run: Run, seen: LastEvents) -> Iterator[ExceptionFeatures]:
    """The exception of the finding, those of its chain before it, then its own line."""
    crashes = [one for one in raised(run, seen) if one.crash is not None]
    own = [one for one in crashes if one.where == finding.first.where]
    chains = [chain for chain in seen.tracebacks if any(crash.where == finding.first.where for crash in chain)]
    members = [crash.where for chain in chains for crash in chain]
    yield from (one.features for one in own)
    yield from (one.features for one in crashes if one.where in members and one not in own)
    for piece in finding.evidence:
        yield from (telling.features_of_line(line.strip(), {}) for line in reversed(piece.text.splitlines()) if line.strip())


def _told(finding: Finding, features: ExceptionFeatures, run: Run) -> Finding | None:
    """The finding with what the index knows; None where it knows nothing of use."""
    wanted = wanted_in(features) or _of_facts(finding)
    found = look_up(wanted) if wanted is not None else None
    if wanted is None or found is None:
        return None
    if not found.ranges:
        return _never(finding, found, wanted)
    if (older := model_code(found, wanted, run.facts)) is not None:
        return _rewritten(finding, api_text.told_of_model(older, wanted), [api_text.remedy_for_model(older, wanted)])
    own = is_llamafactory(run, None) or any(place.package == "llamafactory" for place in features.path)
    advice = advise(found, wanted, run.facts, llamafactory=own)
    if advice is None:
        return None
    return _rewritten(finding, api_text.told(advice, wanted), api_text.remedies(advice))


def _of_facts(finding: Finding) -> Wanted | None:
    """The model type that a rule has found, where the exception is a bare KeyError."""
    name = finding.first.facts.get("model_type")
    return Wanted(kind="model_type", name=str(name)) if name and finding.rule.cause == "package_version_conflict" else None


def _never(finding: Finding, found: Found, wanted: Wanted) -> Finding | None:
    """A name that no release has: the model's own, or misspelt. Of model types a rule says so already."""
    remedies = api_text.remedies_never(found, wanted)
    if wanted.kind != "name" or (is_open(finding) and not remedies):
        return None
    out = _rewritten(finding, api_text.told_never(found, wanted), remedies)
    note = cause_notes().get("trust_remote_code_missing")
    if note is None or not wanted.name.endswith(_OF_MODELS) or found.spelled:
        return out
    return msgspec.structs.replace(out, rule=msgspec.structs.replace(out.rule, cause="trust_remote_code_missing", title=note.title))


def _rewritten(finding: Finding, told: Text, first: list[Remedy]) -> Finding:
    finding = finding.led_by(*first, without=_GENERIC)
    rule = msgspec.structs.replace(finding.rule, body=[Body(told.en, told.ko, told.zh)])
    note = cause_notes().get(_BY_RELEASE)
    if is_open(finding) and note is not None:
        rule = msgspec.structs.replace(
            rule, id=f"{note.family}/release", cause=_BY_RELEASE, title=note.title, confidence=_CONFIDENCE, fallback=False
        )
    return msgspec.structs.replace(finding, rule=rule)
