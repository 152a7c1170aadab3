"""The answer for a failure that no rule explains: what its structure proves, else what is known of it and whom to ask."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import Crash, ProcessEnd, Where
from doctor.core.run import Run
from doctor.diagnosis.unlisted import lone_line, telling
from doctor.diagnosis.unlisted.advice import advice_in, asks, remedy_of, step_of
from doctor.diagnosis.unlisted.features import ExceptionFeatures, config_features, features_of
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.statements import statements
from doctor.diagnosis.unlisted.table import Conclusion, conclude
from doctor.report.context import last_lines
from doctor.report.model import Status
from doctor.report.status import explains_an_end
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding, Says
from doctor.rulebook.model import Body, Remedy, Rule
from doctor.support.texts import Text
from doctor.words import catalogue

RULE = "environment/unknown-exception"
"""The rule under which failures are reported of which nothing but the exception is known."""
_CONFIDENCE = 0.05
"""As in that rule's file: the failure is certain, its cause is not."""
WEAK = 0.5
"""An explanation below this confidence gives way to a conclusion from the exception."""
_HARMLESS = ("KeyboardInterrupt", "SystemExit", "BrokenPipeError", "ChildFailedError", "CalledProcessError", "SignalException")
"""Exceptions that say nothing of their own: a stop that was asked for, and echoes of launchers."""
_WITHOUT_A_WORD = ("process_exited_unexplained", "stopped_from_outside")
"""Causes that say that no message of the process was read, or that something outside ended it."""
_OF_OTHERS = "distributed"
"""The family of failures of which every process speaks, also those that only waited for the one that failed."""
_FEW = 10
"""Logged steps that somebody chose to paste; more of them the detectors judge."""
_QUOTED = 2000
"""Characters of a text that are quoted as evidence."""


class Seen(msgspec.Struct, frozen=True):
    """One piece of the log that may be the failure: its features, its place and its text; `crash` where it is an exception."""

    features: ExceptionFeatures
    where: Where
    text: str
    crash: Crash | None = None


def with_unknown_failure(
    ranked: Sequence[RankedFinding], status: Status, run: Run, seen: LastEvents, consoles: Iterable[str]
) -> list[RankedFinding]:
    """The findings, and first among them the failure itself if the run failed and no finding says why.

    An exception after the completed training is a warning. `consoles` are the log files that were read, whose last lines are quoted.
    """
    ranked, files = list(ranked), list(consoles)
    known = max((one.finding.confidence for one in ranked if explains(one)), default=0.0)
    if status == "failed" and known < WEAK:
        found = _beside_weak(run, seen, files) if known else concluded(run, seen, files)
        if found is not None and found.confidence > known:
            return _first(found, ranked)
        return ranked if known and not _has_own_exception(ranked, run, seen) else _first(_failure(run, seen, files), ranked)
    if status == "unknown" and not any(one.finding.severity != "note" and not _of_config(one.finding) for one in ranked):
        stated = _first_conclusion(_stated(run, seen, files)) or _alone(run, seen, files)
        if stated is not None and stated.rule.symptom == "nonfinite" and _numbers_tell(run):
            return ranked
        return ranked if stated is None else _first(stated, ranked)
    late = [crash for crash in seen.after_end if not _is_harmless(crash)]
    if status in ("completed", "ended_early") and late and not any(one.finding.severity == "error" for one in ranked):
        return _first(_late(late[-1]), ranked)
    return ranked


def _numbers_tell(run: Run) -> bool:
    """Whether the losses that were read say more than a line of them: not a few whose learning rate goes on while the gradient is none.

    A loss scaler that skips a step keeps the learning rate, so such a gradient was applied.
    """
    losses, rates, norms = (run.series[name].values if name in run.series else [] for name in ("loss", "learning_rate", "grad_norm"))
    if not 2 <= len(losses) <= _FEW or len(norms) != len(losses) or len(rates) < 2:
        return bool(losses)
    return rates[-1] == rates[-2] or any(math.isfinite(norm) for norm in norms[-2:])


def _has_own_exception(ranked: Sequence[RankedFinding], run: Run, seen: LastEvents) -> bool:
    """Whether the only explanation is that a process ended without a word, while an exception that is nobody's echo was printed."""
    silent = all(one.finding.rule.cause in _WITHOUT_A_WORD for one in ranked if explains(one))
    crash = _earliest(seen)
    return silent and crash is not None and not _is_harmless(crash) and conclude(features_of(crash, run)) is None


def explains(ranked: RankedFinding) -> bool:
    """Whether a finding is a known reason for the failure; a consequence of the unknown one is none."""
    rule = ranked.finding.rule
    if rule.fallback or ranked.finding.severity == "note" or ranked.role == "consequence" or _of_config(ranked.finding):
        return False
    return ranked.finding.severity == "error" or explains_an_end(ranked.finding)


def _of_config(finding: Finding) -> bool:
    """Whether it warns of a value in the configuration that ends no run by itself."""
    return finding.severity == "warning" and finding.rule.symptom == "config" and "exception" not in finding.first.facts


def _first(finding: Finding, others: Sequence[RankedFinding]) -> list[RankedFinding]:
    """The finding as the root, the others after it; the rule of unknown exceptions gives way."""
    rest = [other for other in others if other.finding.rule.id not in (finding.rule.id, RULE)]
    return [
        RankedFinding(finding, "root"),
        *(RankedFinding(other.finding, "contributing") if other.role == "root" else other for other in rest),
    ]


def _beside_weak(run: Run, seen: LastEvents, files: Sequence[str]) -> Finding | None:
    """What follows from an exception, Python's or a C++ library's, where a finding says no more than that a process ended."""
    native = (one for one in _stated(run, seen, files) if one.features.native)
    return _first_conclusion(raised(run, seen), victims=False) or _first_conclusion(native, victims=False)


def concluded(run: Run, seen: LastEvents, files: Sequence[str]) -> Finding | None:
    """What follows from the earliest exception that is no echo, else from a line that states an error, else from a signal."""
    return _first_conclusion(raised(run, seen)) or _first_conclusion(_stated(run, seen, files)) or _first_conclusion(_ended(run))


def _first_conclusion(candidates: Iterable[Seen], *, victims: bool = True) -> Finding | None:
    """The conclusion from the first candidate that has one.

    What a process says of others (a lost connection, a timeout) explains no exception that was named before it, nor, without `victims`,
    any at all.
    """
    earlier = False
    for one in candidates:
        conclusion = conclude(one.features)
        if conclusion is not None and (conclusion.row.family != _OF_OTHERS or (victims and not earlier)):
            return _of_row(conclusion, one)
        earlier = earlier or conclusion is not None or bool(one.features.exception or one.crash)
    return None


def raised(run: Run, seen: LastEvents) -> Iterator[Seen]:
    """The exceptions in printed order, those of a chain from the original on; complete ones before those that were cut off."""
    chains = [[crash for crash in chain if not _is_harmless(crash)] for chain in seen.tracebacks]
    crashes = [(crash, chain[place + 1 :]) for chain in chains for place, crash in enumerate(chain)]
    for crash, later in sorted(crashes, key=lambda pair: not pair[0].exception):
        yield Seen(features_of(crash, run, later), crash.where, crash.text, crash)


def _stated(run: Run, seen: LastEvents, files: Sequence[str]) -> Iterator[Seen]:
    config = config_features(run)
    for where, text in statements(files):
        if text.startswith("{") or not seen.is_outlived(where):  # a record of a step stands above those of later ones
            yield Seen(telling.features_of_line(text, config), where, text)


def _alone(run: Run, seen: LastEvents, files: Sequence[str]) -> Finding | None:
    """What a line that states an error says by itself, where the log holds no step: an excerpt, whose end is not the run's."""
    if run.last_step is not None or run.series:
        return None
    told = lone_line.strongest([*_stated(run, seen, files)])
    if told is None:
        return None
    rule = _rule(_exception_title(told.features), "error", lone_line.told(told.features))
    says = advice_in(told.features.message)
    rule = msgspec.structs.replace(rule, remedies=[*_asked(told.features), *_step(says), lone_line.what_decides(told.features)])
    facts = telling.facts_of(told.features) | asks(says)
    return _finding(rule, (Evidence(told.where, told.text[:_QUOTED]),), facts, says)


def _asked(features: ExceptionFeatures) -> list[Remedy]:
    """The options that the message itself asks for."""
    return [remedy for one in advice_in(features.message) if (remedy := remedy_of(one)) is not None]


def _step(says: Sequence[Says], code: str = "") -> list[Remedy]:
    """What else the message asks for."""
    found = step_of(says, code)
    return [found] if found is not None else []


def _ended(run: Run) -> Iterator[Seen]:
    for end in run.ends:
        number = end.signal or (-end.code if end.code is not None and end.code < 0 else None)
        if number:
            yield Seen(ExceptionFeatures(signal=number, phase=end.phase, config=config_features(run)), end.where, "")


def _of_row(conclusion: Conclusion, seen: Seen) -> Finding:
    """The row's finding: its opening says what was seen, and that the conclusion is one from the form."""
    features = seen.features
    facts = {**telling.facts_of(features), **conclusion.facts}
    says = advice_in(features.message)
    rule = conclusion.row.rule(telling.opening(features))
    rule = msgspec.structs.replace(rule, remedies=[*_asked(features), *rule.remedies, *_step(says)])
    facts |= asks(says)
    rank = seen.crash.rank if seen.crash else None
    return _finding(rule, (Evidence(seen.where, seen.text[:_QUOTED] or facts["message"]),), facts, says, rank)


def _failure(run: Run, seen: LastEvents, files: Sequence[str]) -> Finding:
    """The failure by its exception, else by its exit code or signal."""
    crash = _earliest(seen)
    if crash is not None:
        evidence = (Evidence(crash.where, crash.text[:_QUOTED]), *_last_lines([crash.where.file, *files]))
        return _unknown(features_of(crash, run), evidence, crash.rank)
    end = next((end for end in run.ends if end.signal or end.code), ProcessEnd(where=Where("")))
    quoted = _last_lines([end.where.file, *files]) or (Evidence(end.where, ""),)
    title, text = _told_by_end(end, cut_off=any(not crash.exception for chain in seen.tracebacks for crash in chain))
    facts = {"signal": end.signal} if end.signal else {"code": end.code} if end.code else {}
    return _finding(_rule(title, "error", text), quoted, facts)


def _told_by_end(end: ProcessEnd, *, cut_off: bool) -> tuple[Text, Text]:
    """Title and text of a failure without an exception: its signal, its exit code, or that the log breaks off."""
    text = catalogue.text("report.say.failed_text", steps="")
    if end.signal:
        return catalogue.text("report.say.failed_signal", signal=end.signal), text
    if end.code:
        return catalogue.text("report.say.failed_exit", code=end.code), text
    if cut_off:
        return catalogue.text("report.say.failed_cut"), catalogue.text("report.say.failed_cut_text")
    return catalogue.text("report.say.failed_unsaid"), text


def _earliest(seen: LastEvents) -> Crash | None:
    """The exception that a failure is told by: the earliest that is no echo."""
    originals = [chain[0] for chain in seen.tracebacks if chain[0].exception]
    own = [crash for crash in originals if not _is_harmless(crash)]
    return next(iter(own or originals), None)


def _unknown(features: ExceptionFeatures, evidence: tuple[Evidence, ...], rank: int | None) -> Finding:
    says = advice_in(features.message)
    alone = not features.path
    code = features.raised.code.strip() if features.raised else ""
    ask = telling.whom_to_ask(features)
    body = lone_line.told(features) if alone else catalogue.text("report.say.unlisted_unknown", opening=telling.opening(features), ask=ask)
    rule = _rule(_exception_title(features), "error", body)
    more = [lone_line.what_decides(features)] if alone else []
    rule = msgspec.structs.replace(rule, remedies=[*_asked(features), *_step(says, code), *more, *telling.next_steps(features)])
    facts = {name: value for name, value in telling.facts_of(features).items() if name != "message" or features.message} | asks(says, code)
    return _finding(rule, evidence, facts, says, rank)


def unknown_of(finding: Finding, run: Run, seen: LastEvents) -> Finding | None:
    """The failure of a conclusion without the conclusion; None where the finding is of no exception."""
    told = next((one for one in raised(run, seen) if one.where == finding.first.where and one.crash is not None), None)
    return _unknown(told.features, finding.evidence, finding.first.rank) if told is not None and told.features.exception else None


def _late(crash: Crash) -> Finding:
    facts = {"exception": crash.exception} if crash.exception else {}
    facts |= {"message": crash.message.partition("\n")[0][:300]} if crash.message else {}
    named = bool(crash.exception or crash.message)
    title = catalogue.text("report.say.after_end", title=_exception_title(crash) if named else catalogue.text("report.say.failed_cut"))
    rule = _rule(title, "warning", catalogue.text("report.say.after_end_text", steps=""))
    return _finding(rule, (Evidence(crash.where, crash.text[:_QUOTED]),), facts)


def _is_harmless(crash: Crash) -> bool:
    return crash.exception.rpartition(".")[2] in _HARMLESS


def _exception_title(seen: ExceptionFeatures | Crash) -> Text:
    """`class: message`; both are facts, filled in and masked where the report is written."""
    form = "{exception}: {message}" if seen.exception and seen.message else "{exception}" if seen.exception else "{message}"
    return Text(form, form, form)


def _rule(title: Text, severity: str, body: Text) -> Rule:
    return Rule(
        id=RULE,
        cause="unknown",
        symptom="crash",
        severity=severity,  # type: ignore[arg-type]
        when={"uncaught_exception": {}},
        title=title,
        body=[Body(body.en, body.ko, body.zh)],
        confidence=_CONFIDENCE,
        fallback=True,
    )


def _finding(
    rule: Rule, evidence: tuple[Evidence, ...], facts: Mapping[str, Any], says: Sequence[Says] = (), rank: int | None = None
) -> Finding:
    match = Match(evidence=evidence, facts=dict(facts), rank=rank)
    ranks = () if rank is None else (rank,)
    return Finding(rule=rule, first=match, count=1, ranks=ranks, steps=None, evidence=evidence, order=0, says=tuple(says))


def _last_lines(files: Sequence[str]) -> tuple[Evidence, ...]:
    """The last lines of the first file that can be read again."""
    for file in dict.fromkeys(filter(None, files)):
        line, text = last_lines(Path(file))
        if text:
            return (Evidence(Where(file, line), text),)
    return ()
