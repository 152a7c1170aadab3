"""A report about data sets as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.advice import effect_of, todo_of
from doctor.dataset.findings import Finding, written
from doctor.dataset.inspect import DataReport, DatasetSeen
from doctor.dataset.numbers import Numbers
from doctor.privacy.secrets import clean
from doctor.words.catalogue import say

MARKS = {"error": "✗", "warning": "⚠", "note": "-"}
_ASCII = {"error": "[x]", "warning": "[!]", "note": "-"}
_WORTH_TELLING = 1.05
"""Packing that saves less than this part of the rows is not named: the figure has one decimal."""
_SHOWN = 3
"""Places of a finding that a terminal shows; JSON has all that are kept."""


def to_json(report: DataReport, lang: str) -> str:
    """The report with the sentences of one language."""
    data: dict[str, Any] = msgspec.to_builtins(report)
    for finding, plain in zip(report.findings, data["findings"], strict=True):
        plain |= {"share": finding.share, "title": title(finding, lang), "effect": effect_of(finding.kind)}
        plain |= {"effect_text": say(f"data.effect.{effect_of(finding.kind)}", lang), "todo": _todo(finding, report, lang)}
        for place in plain["places"]:
            place["detail"] = clean(place["detail"])
    if report.unknown:
        data["unknown_text"] = say(f"data.unknown.{report.unknown}", lang)
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n"


def title(finding: Finding, lang: str) -> str:
    """What was found."""
    return say(f"data.kind.{finding.kind}", lang)


def _todo(finding: Finding, report: DataReport, lang: str) -> str:
    key = todo_of(finding.kind)
    if key == "longer":
        return say("data.todo.longer", lang, suggested=report.numbers.suggested_cutoff_len if report.numbers else "?")
    return say(f"data.todo.{key}", lang)


def percent(share: float) -> str:
    """A share as a percentage, with a digit more where it is small."""
    return f"{share:.1%}" if share >= 0.001 or share == 0 else f"{share:.2%}"


def to_terminal(report: DataReport, lang: str, folder: Path, *, unicode: bool = True, detail: int = 0) -> str:
    """The report for a terminal. `detail`: -1 only findings above a note, 1 all places."""
    marks = MARKS if unicode else _ASCII
    lines = [say("data.say.title", lang, config=report.config)]
    lines += [f"  {line}" for seen in report.datasets for line in dataset_lines(seen, lang)]
    findings = [finding for finding in report.findings if detail >= 0 or finding.severity != "note"]
    for finding in findings:
        lines += ["", *finding_lines(finding, report, lang, folder, marks, 100 if detail > 0 else _SHOWN)]
    if not findings:
        lines += ["", say("data.say.clean", lang)]
    if detail >= 0:
        lines += ["", *length_lines(report, lang, folder), *near_lines(report, lang)]
    return "\n".join(lines) + "\n"


def dataset_lines(seen: DatasetSeen, lang: str) -> Iterator[str]:
    """What was read of a data set, or why nothing."""
    role = say(f"data.say.{seen.role}", lang)
    if seen.problem:
        yield f"{seen.name} ({role}): {say(f'data.problem.{seen.problem}', lang, detail=seen.detail)}"
        return
    yield say("data.say.dataset", lang, name=seen.name, role=role, rows=seen.rows, used=seen.used, dropped=seen.dropped)
    if not seen.complete:
        yield "  " + say("data.say.first_rows", lang, rows=seen.rows)


def finding_lines(finding: Finding, report: DataReport, lang: str, folder: Path, marks: dict[str, str], shown: int) -> Iterator[str]:
    """A heading, the places (indented), and what LLaMA-Factory does with it and what to do."""
    where = say("data.say.count", lang, count=finding.count, dataset=finding.dataset, share=percent(finding.share))
    yield f"{marks[finding.severity]} {title(finding, lang)}: {where if finding.total else finding.dataset}"
    for place in finding.places[:shown]:
        detail = clean(place.detail).replace("\n", " ")
        name = written(place, folder)
        if not (name or detail):
            continue
        yield f"    {name}{f'  {detail}' if detail and detail != name else ''}"
    if finding.count > shown:
        yield "    " + say("data.say.more", lang, count=finding.count - min(shown, len(finding.places)))
    yield f"  {say(f'data.effect.{effect_of(finding.kind)}', lang)} {_todo(finding, report, lang)}"


def length_lines(report: DataReport, lang: str, folder: Path) -> Iterator[str]:
    """A heading, then the figures and the longest samples; or one line that says why there are none."""
    numbers = report.numbers
    if numbers is None:
        reason = say(f"data.unknown.{report.unknown}", lang)
        yield say("data.say.lengths_unknown", lang, reason=f"{reason} ({report.unknown_detail})" if report.unknown_detail else reason)
        return
    yield f"{say('data.say.lengths', lang)} ({report.template})"
    yield from (f"  {line}" for line in number_lines(numbers, lang))
    if report.rebuilt:
        yield "  " + say("data.say.rebuilt", lang, kind=report.rebuilt)
    yield f"  {say('data.say.longest', lang)}:"
    for tokens, place in numbers.longest_places[:_SHOWN]:
        yield f"    {written(place, folder)}  {say('data.say.tokens', lang, tokens=tokens)}"


def number_lines(numbers: Numbers, lang: str) -> Iterator[str]:
    """The figures, a sentence each."""
    about: dict[str, Any] = {field: getattr(numbers, field) for field in ("p50", "p90", "p99", "longest", "samples")}
    yield say("data.say.quantiles", lang, **about)
    share = percent(numbers.cut / numbers.samples)
    if numbers.cut:
        yield say("data.say.cut", lang, cutoff=numbers.cutoff_len, count=numbers.cut, share=share, tokens=numbers.cut_tokens)
    else:
        yield say("data.say.uncut", lang, cutoff=numbers.cutoff_len, suggested=numbers.suggested_cutoff_len)
    yield say("data.say.epoch", lang, tokens=numbers.tokens_per_epoch, trained=numbers.trained_per_epoch)
    if numbers.padding is not None and numbers.padding_grouped is not None:
        yield say("data.say.padding", lang, padding=percent(numbers.padding), grouped=percent(numbers.padding_grouped))
    if numbers.packed_rows is not None and numbers.packing_gain is not None and numbers.packing_gain >= _WORTH_TELLING:
        key = "packing" if numbers.padding is not None else "packed"
        yield say(f"data.say.{key}", lang, rows=numbers.packed_rows, gain=f"{numbers.packing_gain:.1f}")
    if numbers.steps_per_epoch is not None:
        yield say("data.say.steps", lang, steps=numbers.steps_per_epoch, gpus=numbers.gpus)
    for reason, count in numbers.unknown.items():
        yield say("data.say.some_unknown", lang, count=count, reason=say(f"data.unknown.{reason}", lang))


def near_lines(report: DataReport, lang: str) -> Iterator[str]:
    """How far near duplicates were looked for, where that is not everything."""
    used = sum(seen.used for seen in report.datasets if seen.role == "train")
    if report.near_asked and not report.near_known:
        yield say("data.say.no_near", lang)
    elif report.near_asked and report.near_compared < used and report.near_limited:
        yield say("data.say.near_first", lang, count=report.near_compared)


def to_markdown(report: DataReport, lang: str, folder: Path) -> str:
    """The report for an issue or a pull request."""
    lines = [f"# {say('data.say.title', lang, config=report.config)}", ""]
    lines += [f"- {line.strip()}" for seen in report.datasets for line in dataset_lines(seen, lang)]
    for finding in report.findings:
        lines += ["", f"## {MARKS[finding.severity]} {title(finding, lang)}", ""]
        first, *places, last = finding_lines(finding, report, lang, folder, MARKS, 100)
        lines += [first.partition(": ")[2], "", *(f"- `{place.strip()}`" for place in places), "", last.strip()]
    lines += ["", *(line if line.startswith(" ") else f"**{line}**" for line in length_lines(report, lang, folder))]
    return "\n".join(line.replace("    ", "  - ").replace("  ", "- ", 1) if line.startswith("  ") else line for line in lines) + "\n"
