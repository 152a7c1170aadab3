"""A failure that no rule knows: its exception is the finding's title, the last lines of the log are the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from doctor.core.events import Crash, Event, Fact, ProcessEnd, Step, Where
from doctor.core.run import Run
from doctor.report.context import last_lines
from doctor.report.model import Status
from doctor.report.status import explains_an_end
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding
from doctor.rulebook.model import Body, Rule
from doctor.support.texts import Text
from doctor.words import catalogue

RULE = "environment/unknown-exception"
"""The rule under which unknown failures are reported."""
_CONFIDENCE = 0.05
"""As in that rule's file: the failure is certain, its cause is not."""
_CRASHES_KEPT = 8
"""The last exceptions of a run; a failure is told by the latest."""
_HARMLESS = ("KeyboardInterrupt", "SystemExit", "BrokenPipeError", "ChildFailedError", "CalledProcessError", "SignalException")
"""Exceptions that say nothing of their own: a stop that was asked for, and echoes of launchers."""


class LastEvents:
    """Remembers, while events go by, the last exceptions, those after the completed training, and whether the last step is exact."""

    def __init__(self) -> None:
        self.crashes: list[Crash] = []
        self.after_end: list[Crash] = []
        self.exact_steps = False
        self._last_step = -1
        self._completed: Where | None = None

    def see(self, event: Event | list[Step]) -> None:
        """One event, or a batch of steps."""
        steps = event if isinstance(event, list) else [event] if isinstance(event, Step) else []
        if steps and steps[-1].step >= self._last_step:
            self._last_step, self.exact_steps = steps[-1].step, steps[-1].exact
        if isinstance(event, Crash):
            if event.chain == 0 and event.exception:
                self.crashes = [*self.crashes, event][-_CRASHES_KEPT:]
                if self._is_after_end(event.where):
                    self.after_end = [*self.after_end, event][-_CRASHES_KEPT:]
        elif isinstance(event, Fact) and event.name == "run.completed" and event.value is True:
            self._completed = event.where

    def _is_after_end(self, where: Where) -> bool:
        end = self._completed
        return end is not None and end.file == where.file and end.line is not None and where.line is not None and where.line > end.line


def with_unknown_failure(
    ranked: Sequence[RankedFinding], status: Status, run: Run, seen: LastEvents, consoles: Iterable[str]
) -> list[RankedFinding]:
    """The findings, and first among them the failure itself if the run failed and no finding says why.

    An exception after the completed training is a warning. `consoles` are the log files that were read, whose last lines are quoted.
    """
    ranked = list(ranked)
    if status == "failed" and not any(_explains(ranked_finding) for ranked_finding in ranked):
        return _first(_failure(ranked, run, seen, list(consoles)), ranked)
    late = [crash for crash in seen.after_end if crash.exception.rpartition(".")[2] not in _HARMLESS]
    if status in ("completed", "ended_early") and late and not any(ranked_finding.finding.severity == "error" for ranked_finding in ranked):
        return _first(_late(late[-1]), ranked)
    return ranked


def _explains(ranked: RankedFinding) -> bool:
    """Whether a finding is a known reason for the failure; a consequence of the unknown one is none."""
    finding = ranked.finding
    if finding.rule.fallback or finding.severity == "note" or ranked.role == "consequence":
        return False
    return finding.severity == "error" or explains_an_end(ranked.finding)


def _first(finding: Finding, others: Sequence[RankedFinding]) -> list[RankedFinding]:
    """The finding as the root, the others after it; one of the same rule gives way."""
    rest = [other for other in others if other.finding.rule.id != finding.rule.id]
    return [
        RankedFinding(finding, "root"),
        *(RankedFinding(other.finding, "contributing") if other.role == "root" else other for other in rest),
    ]


def _failure(ranked: Sequence[RankedFinding], run: Run, seen: LastEvents, consoles: Sequence[str]) -> Finding:
    """The failure by its exception, else by its exit code or signal."""
    known = next(
        (
            ranked_finding.finding
            for ranked_finding in ranked
            if ranked_finding.finding.rule.fallback and ranked_finding.finding.first.facts.get("exception")
        ),
        None,
    )
    crash = next(
        (ranked_finding for ranked_finding in reversed(seen.crashes) if ranked_finding.exception.rpartition(".")[2] not in _HARMLESS), None
    )
    crash = crash or next(reversed(seen.crashes), None)
    if known is not None:
        rule = msgspec.structs.replace(known.rule, severity="error", title=_exception_title(known.first.facts.get("message")))
        file = known.first.where.file
        return msgspec.structs.replace(known, rule=rule, evidence=(*known.evidence, *_last_lines([file, *consoles])))
    if crash is not None:
        facts = {"exception": crash.exception, **({"message": crash.message.partition("\n")[0][:300]} if crash.message else {})}
        quoted = (Evidence(crash.where, crash.text[:2000]), *_last_lines([crash.where.file, *consoles]))
        return _finding(_exception_title(facts.get("message")), "error", quoted, facts)
    end = next((end for end in run.ends if end.signal or end.code), ProcessEnd(where=Where("")))
    lines = _last_lines([end.where.file, *consoles])
    quoted = lines or (Evidence(end.where, ""),)
    if end.signal:
        return _finding(catalogue.text("report.say.failed_signal", signal=end.signal), "error", quoted, {"signal": end.signal})
    return _finding(catalogue.text("report.say.failed_exit", code=end.code or 1), "error", quoted, {"code": end.code})


def _late(crash: Crash) -> Finding:
    facts = {"exception": crash.exception, **({"message": crash.message.partition("\n")[0][:300]} if crash.message else {})}
    title = catalogue.text("report.say.after_end", title=_exception_title(facts.get("message")))
    body = catalogue.text("report.say.after_end_text", steps="")
    return _finding(title, "warning", (Evidence(crash.where, crash.text[:2000]),), facts, body)


def _exception_title(message: object) -> Text:
    """`class: message`; both are facts, filled in and masked where the report is written."""
    form = "{exception}: {message}" if message else "{exception}"
    return Text(form, form, form)


def _finding(title: Text, severity: str, evidence: tuple[Evidence, ...], facts: Mapping[str, object], body: Text | None = None) -> Finding:
    text = body or catalogue.text("report.say.failed_text", steps="")
    rule = Rule(
        id=RULE,
        cause="unknown",
        symptom="crash",
        severity=severity,  # type: ignore[arg-type]
        when={"uncaught_exception": {}},
        title=title,
        body=[Body(text.en, text.ko, text.zh)],
        confidence=_CONFIDENCE,
        fallback=True,
    )
    return Finding(rule=rule, first=Match(evidence=evidence, facts=dict(facts)), count=1, ranks=(), steps=None, evidence=evidence, order=0)


def _last_lines(files: Sequence[str]) -> tuple[Evidence, ...]:
    """The last lines of the first file that can be read again."""
    for file in dict.fromkeys(filter(None, files)):
        line, text = last_lines(Path(file))
        if text:
            return (Evidence(Where(file, line), text),)
    return ()
