"""Reports as answers for agents: plain data, the verdict first, then what to do with values, then evidence and patch."""

from __future__ import annotations

from typing import Any, Literal

from doctor.agents.budget import DETAIL_TOKENS, VERDICT_TOKENS, fitted
from doctor.report.model import FindingView, RemedyView, Report
from doctor.reporters import advice, base
from doctor.words import catalogue
from doctor.words.catalogue import Words

Detail = Literal["verdict", "evidence"]
VALUE_CHARS = 60
"""Characters of a value beside a remedy."""
QUOTE_CHARS = 700
"""A longer quote is cut: the decisive line is rarely longer."""
DIFF_CHARS = 3000
"""A longer diff is cut; the patch itself is written whole."""
STANDING = {
    "apply": "in_patch",
    "later": "if_needed",
    "done": "already_set",
    "not_applicable": "not_applicable",
    "conflict": "conflict",
    "rejected": "rejected",
    "manual": "by_hand",
}
"""Standing of a remedy -> its name for agents."""


def of_report(report: Report, detail: Detail) -> dict[str, Any]:
    """The verdict within 800 tokens, or the verdict with evidence, other remedies and patch within 3,000."""
    answer = _verdict(report)
    if detail == "verdict":
        return fitted(answer, VERDICT_TOKENS)
    return fitted({**answer, **_evidence(report)}, DETAIL_TOKENS)


def of_patch(report: Report) -> dict[str, Any]:
    """What would be changed, why, and the predicted effect; nothing is written."""
    patch, words = report.patch, catalogue.load(report.lang)
    answer: dict[str, Any] = {"patch": "none" if patch is None else "config" if patch.yaml else "options"}
    if patch is None:
        told = _todo(report)
        return fitted({**answer, "cause": report.cause, "instead": told or "no option cures this cause"}, DETAIL_TOKENS)
    answer["changes"] = [_plain(vars_of(change)) for change in patch.changes]
    answer |= _plain({"for": report.run.path, "source": patch.source, "packages": patch.packages, "command": patch.command})
    answer |= _plain({"options": patch.overrides if not patch.yaml else [], "because": patch.because})
    answer |= _plain({"effect": advice.predicted_lines(patch, words), "notes": patch.notes, "diff": _cut(patch.diff or "", DIFF_CHARS)})
    return fitted(answer, DETAIL_TOKENS)


def _verdict(report: Report) -> dict[str, Any]:
    words = catalogue.load(report.lang)
    roots, followed, others, _ = base.parts(report)
    root = roots[0] if roots else None
    _, title, sentence = base.verdict(report, words) if root is None else ("", root.title, root.text)
    answer: dict[str, Any] = {"verdict": report.verdict, "title": title, "why": sentence, "cause": report.cause}
    if root is not None:
        answer |= _plain({"rule": root.rule, "sure": words.how_sure(root.confidence), "where": _place(root, words)})
    answer |= _plain({"do": _todo(report), "commands": advice.next_commands(report), "patch": _patch_kind(report)})
    run = report.run
    answer["run"] = _plain(
        {
            "path": run.path,
            "status": run.status,
            **run.identity(),
            "framework": None,
            "last_step": run.steps.last,
            "planned_steps": run.steps.planned,
        }
    )
    answer |= _plain({"figures": _figures(report), "other_problems": [one.title for one in (*roots[1:], *others)][:4]})
    return answer | _plain({"consequences": len(followed), "not_checked": base.memory_unchecked(report, words)})


def _patch_kind(report: Report) -> str:
    if report.patch is None:
        return "none: no option cures this cause" if report.cause else ""
    return "plan_patch shows it, apply_patch writes it" if report.patch.yaml else "options to add to the command; no YAML was found"


def _figures(report: Report) -> dict[str, Any]:
    found = report.run.vitals
    names = ("loss_first", "loss_last", "seconds_per_step", "tokens_per_second", "peak_gib", "duration_seconds", "checkpoint")
    return _plain({name: getattr(found, name) for name in names}) if found else {}


def _todo(report: Report) -> list[dict[str, Any]]:
    return [_remedy(remedy, report, short=True) for remedy in advice.todo(report)[:4]]


def _remedy(remedy: RemedyView, report: Report, *, short: bool = False) -> dict[str, Any]:
    new = {"unset": "(remove)", "scale": "(times {})"}
    changes = {
        change.key: [_value(change.old), new[change.op].format(change.new) if change.op in new else _value(change.new)]
        for change in remedy.changes
    }
    told = {"text": remedy.text, "status": STANDING[advice.standing(remedy, report)], "old_new": changes, "command": remedy.command}
    return _plain(told if short else {**told, "reason": remedy.reason, "cost": remedy.cost})


def _evidence(report: Report) -> dict[str, Any]:
    words = catalogue.load(report.lang)
    roots, followed, others, notes = base.parts(report)
    out: dict[str, Any] = {}
    if roots:
        out["evidence"] = [{"at": base.place(piece, words), "text": _cut(piece.text, QUOTE_CHARS)} for piece in roots[0].evidence[:3]]
        out["message_says"] = [one.text for one in roots[0].says]
        out["candidates"] = [_plain({"cause": one.cause, "title": one.title, "check": one.check}) for one in roots[0].candidates]
    if report.patch:
        out["diff"] = _cut(report.patch.diff or "", DIFF_CHARS)
        out["effect"] = [*advice.predicted_lines(report.patch, words), *report.patch.notes]
    out["consequences"] = [f"{one.rule}: {one.title}" for one in followed]
    out["others"] = [
        _plain({"rule": one.rule, "severity": one.severity, "title": one.title, "why": one.text}) for one in (*roots[1:], *others)
    ]
    useful = [remedy for root in roots for remedy in root.remedies if remedy.status not in ("not_applicable",)]
    out["remedies"] = [_remedy(remedy, report) for remedy in useful]
    out["notes"] = [one.title for one in notes]
    return _plain(out)


def _place(finding: FindingView, words: Words) -> str:
    return base.place(finding.evidence[0], words) if finding.evidence else ""


def _value(value: Any) -> Any:
    """A value; of a long one (an inline DeepSpeed config) the beginning, for plan_patch shows it whole."""
    return value if len(str(value)) <= VALUE_CHARS else f"{str(value)[:VALUE_CHARS]}..."


def _cut(text: str, most: int) -> str:
    """The beginning and the end of a long text."""
    return text if len(text) <= most else f"{text[: most // 2]}\n[...]\n{text[-most // 2 :]}"


def vars_of(change: Any) -> dict[str, Any]:
    """A change as data; the old value only where there was one."""
    return {"target": change.target, "op": change.op, "key": change.key, "old": change.old, "new": change.new}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is not known or empty."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {}) and value is not False}
