"""What to do about a report's findings, shared by the outputs for people: remedies, commands, predictions, attempts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

from doctor.report.model import ChangeView, FindingView, PatchView, RemedyView, Report, SimilarView
from doctor.reporters.base import parts
from doctor.rulebook.findings import SampleRow, Samples
from doctor.support import shell
from doctor.words import catalogue
from doctor.words.catalogue import Words

_OR = re.compile(r"(?:Or |또는 |或者(?:，)?)(?=\S)")
"""How a remedy begins that is another way than the one before it."""
VALUE_CHARS = 40
"""A longer value is cut where only the keys matter; the patch shows it whole."""


class RemedyGroups(NamedTuple):
    """A finding's remedies as people read them: what acts on the cause itself, the guide's steps, and the others."""

    direct: list[RemedyView]
    guide: list[RemedyView]
    others: list[RemedyView]

    def __bool__(self) -> bool:
        return any(self)

    def labelled(self, words: Words) -> list[tuple[str, RemedyView]]:
        """All remedies in order, each with its place in the guide or the name of its group."""
        guide = [(f"{words.section[remedy.guide.section]} {remedy.guide.step}", remedy) for remedy in self.guide if remedy.guide]
        return [*((words("direct"), remedy) for remedy in self.direct), *guide, *((words("beyond"), remedy) for remedy in self.others)]

    def intro(self, words: Words) -> str:
        """In which order they stand, and from which chapters of the guide; empty without a step of the guide."""
        if not self.guide:
            return ""
        titles = words("comma").join(dict.fromkeys(words.section_title[remedy.guide.section] for remedy in self.guide if remedy.guide))
        return words(f"{'direct_' if self.direct else ''}{'guide_order' if self.others else 'guide_only'}", titles=titles)


def in_groups(remedies: Sequence[RemedyView]) -> RemedyGroups:
    """The remedies in the report's order (planner/plan.py). All steps of the guide are shown, of the others those of use in this run."""
    shown = [remedy for remedy in remedies if remedy.guide or remedy.status not in ("not_applicable", "done")]
    places = [place for place, remedy in enumerate(shown) if remedy.guide]
    if not places:
        return RemedyGroups([], [], shown)
    extra = [(place, remedy) for place, remedy in enumerate(shown) if not remedy.guide]
    direct = [remedy for place, remedy in extra if place < places[0]]
    return RemedyGroups(direct, [shown[place] for place in places], [remedy for place, remedy in extra if place > places[0]])


def candidate_lines(finding: FindingView, words: Words) -> list[tuple[str, str, str]]:
    """The possible causes of a failure that no rule lists, most probable first: title, what speaks for it, what would confirm it.

    No percentage: it holds for failures of all kinds, and those that no rule lists are the harder ones.
    """
    return [
        (
            one.title,
            words("candidate_reasons", reasons=words("comma").join(f"`{reason}`" for reason in one.reasons)) if one.reasons else "",
            one.check,
        )
        for one in finding.candidates
    ]


SAMPLES_SHOWN = 8
"""Samples of a batch that a page lists; JSON has more."""


def sample_lines(finding: FindingView, words: Words, most: int = SAMPLES_SHOWN) -> tuple[str, list[str]]:
    """A heading and a line a sample, for a failure in a step whose samples are known; ("", []) otherwise."""
    found = finding.samples
    if found is None:
        return "", []
    steps = str(found.steps[0]) if found.steps[0] == found.steps[1] else f"{found.steps[0]}-{found.steps[1]}"
    lines = [_sample_line(row, found, words) for row in found.rows[:most]]
    rest = found.total - len(lines)
    return words("samples_of_steps", steps=steps), [*lines, *([words("samples_more", count=rest)] if rest > 0 else [])]


def _sample_line(row: SampleRow, found: Samples, words: Words) -> str:
    """`data/a.jsonl:7, 1874 tokens`, with step and rank where there are several."""
    parts = [f"{row.file}:{row.line}" if row.line else f"{row.file} row {row.row}"]
    parts += [words("sample_tokens", tokens=row.tokens)] if row.tokens is not None else []
    parts += [words("sample_untrained")] if row.trained == 0 else []
    parts += [words("sample_step", step=row.step)] if found.steps[0] != found.steps[1] else []
    parts += [words("sample_rank", rank=row.rank)] if found.world > 1 else []
    return words("comma").join(parts)


def known_failures(report: Report) -> list[tuple[str, list[SimilarView]]]:
    """Similar public issues, grouped by their fix, nearest first."""
    fixes: dict[str, dict[str, SimilarView]] = {}
    for issue in sorted((issue for finding in report.findings for issue in finding.similar), key=lambda issue: -issue.score):
        fixes.setdefault(issue.remedy, {}).setdefault(issue.issue, issue)
    return [(fix, list(issues.values())) for fix, issues in fixes.items()]


def standing(remedy: RemedyView, report: Report) -> str:
    """A remedy's status as people read it: one that applies but is not in the patch is `later` (if needed)."""
    patched = report.patch.changes if report.patch else []
    return "later" if remedy.status == "apply" and not (patched and all(change in patched for change in remedy.changes)) else remedy.status


def next_commands(report: Report) -> list[str]:
    """What to type next, one line each: install packages, write the patched config unless that is done, train with it."""
    patch = report.patch
    if patch is None:
        return []
    out = [f"pip install {' '.join(patch.packages)}"] if patch.packages else []
    path = shell.path(report.run.path)
    command = patch.command
    if report.kind == "check" and patch.yaml:
        out += _fix_commands(patch, path)
        command = None if patch.fixed_by in ("partly", "nothing") else with_config(command, patch.file, report.run.path)
    elif patch.yaml and patch.file and not patch.written:
        given = f" --config {shell.path(patch.source)}" if patch.source and not _lies_in(patch.source, report.run.path) else ""
        options = "".join(f" {shell.word(word)}" for word in patch.options)
        out.append(f"lfdoctor fix {path}{given}{options} -o {shell.path(patch.file)}")
    return [*out, *([command] if command else [])]


def _fix_commands(patch: PatchView, path: str) -> list[str]:
    """What writes the patch into the checked config. What goes beyond the safe fixes is shown (--diff) before it is written."""
    if patch.fixed_by == "safe":
        return [f"lfdoctor check {path} --fix"]
    if patch.fixed_by in ("unsafe", "partly"):
        return [f"lfdoctor check {path} --unsafe-fixes --diff", f"lfdoctor check {path} --fix --unsafe-fixes"]
    return []


def with_config(command: str | None, old: str | None, new: str) -> str | None:
    """A command on another config file."""
    if command is None or old is None:
        return command
    return re.sub(rf"(?<!\S){re.escape(shell.word(old))}(?!\S)", lambda _: shell.word(new), command, count=1)


def _lies_in(file: str, folder: str) -> bool:
    """Whether `analyze folder` finds the file by itself."""
    return PurePath(file).is_relative_to(folder) or file == folder


def todo(report: Report) -> list[RemedyView]:
    """What to do about the root causes: what is in the patch (a change once), else what applies, else what is manual.

    Before it the first remedy that only a person can apply and that acts on the cause itself, or that only an unread configuration
    keeps out of the patch.
    """
    return _beginning(_todo(report))


def _beginning(remedies: list[RemedyView]) -> list[RemedyView]:
    """The remedies; the first does not begin with `Or` where the one before it in the rule is not shown."""
    if not remedies or (found := _OR.match(remedies[0].text)) is None:
        return remedies
    rest = remedies[0].text[found.end() :]
    return [msgspec.structs.replace(remedies[0], text=rest[:1].upper() + rest[1:]), *remedies[1:]]


def _todo(report: Report) -> list[RemedyView]:
    remedies = [remedy for finding in parts(report)[0] for remedy in finding.remedies]
    undecided = [remedy for remedy in remedies if remedy.primary][:1]
    if report.patch is None:
        applying = [remedy for remedy in remedies if remedy.status == "apply"]
        return [*undecided, *applying] if applying else [remedy for remedy in remedies if remedy.status == "manual"]
    chosen: list[RemedyView] = []
    for remedy in remedies:
        told = [change for other in chosen for change in other.changes]
        if standing(remedy, report) == "apply" and any(change not in told for change in remedy.changes):
            chosen.append(remedy)
    return [*undecided, *chosen] if chosen else [remedy for remedy in remedies if standing(remedy, report) in ("manual", "apply")]


def launch_lines(patch: PatchView, words: Words) -> tuple[str, str]:
    """Without the run's YAML: a sentence, and the options to give, unless the next command has them already."""
    if patch.diff or not patch.overrides:
        return "", ""
    words_of = shlex.split(patch.command) if patch.command else []
    carried = bool(words_of) and all(word in words_of or _as_flag(word, words_of) for word in patch.overrides)
    return (words("no_yaml_command"), "") if carried else (words("no_yaml"), " ".join(patch.overrides))


def _as_flag(word: str, words: Sequence[str]) -> bool:
    """Whether a command has an override as `--key value`."""
    key, _, value = word.partition("=")
    return f"--{key}" in words and value in words


def predicted_lines(patch: PatchView, words: Words) -> list[str]:
    """What the patch is predicted to do, one sentence a line."""
    out = []
    memory, batch = patch.predicted.memory_gib, patch.predicted.effective_batch
    if memory is not None and memory.after is not None:
        out.append(
            words(
                "memory",
                after=f"{memory.after:.1f}",
                before=words("memory_before", before=f"{memory.before:.1f}") if memory.before is not None else "",
                interval=words("memory_interval", low=f"{memory.low:.1f}", high=f"{memory.high:.1f}")
                if memory.low is not None and memory.high is not None
                else "",
                capacity=words("memory_capacity", capacity=f"{memory.capacity:.1f}") if memory.capacity is not None else "",
            )
        )
    if batch:
        out.append(words("batch_kept" if batch[0] == batch[1] else "batch_changed", before=batch[0], after=batch[1]))
    return [*out, *([patch.predicted.speed] if patch.predicted.speed else [])]


def attempt_lines(report: Report, words: Words) -> list[tuple[str, list[str]]]:
    """The attempts of a healed run: headline, changes, checkpoint, cause of the failure."""
    out = []
    for attempt in report.attempts:
        head = words("attempt", number=attempt.number, outcome=words(f"attempt_{attempt.outcome}"), why=attempt.why)
        lines = [change_line(change, words) for change in attempt.changes]
        if attempt.redone is not None:
            lines.append(
                words("attempt_resumed", path=attempt.resumed_from, redone=attempt.redone)
                if attempt.resumed_from
                else words("attempt_fresh", redone=attempt.redone)
            )
        if attempt.cause:
            lines.append(words("attempt_cause", title=attempt.title, cause=attempt.cause, step=attempt.last_step or 0))
        if attempt.effective_batch:
            lines.append(words("attempt_batch", batch=attempt.effective_batch))
        out.append((head, lines))
    return out


def change_line(change: ChangeView, words: Words) -> str:
    """One change outside the YAML's diff: `environment: KEY = value (was x)`, the key and values as code."""
    done = words("removed") if change.op == "unset" else f"= `{_value(change.new)}`"
    was = f" ({words('was', old=_value(change.old))})" if change.old is not None else ""
    return f"{words(f'target_{change.target}')}: `{change.key}` {done}{was}"


def new_values(remedy: RemedyView, words: Words) -> str:
    """What a remedy that applies changes, as `key: old -> new`, by commas; without what its text says already; empty for other remedies."""
    if remedy.status != "apply":
        return ""
    return words("comma").join(_new_value(change, words) for change in remedy.changes if not _stated(change, remedy.text))


def _stated(change: ChangeView, text: str) -> bool:
    """Whether a text names the key to remove, or the new value of a key that had none."""
    if change.op == "unset":
        return f"`{change.key}`" in text
    return change.old is None and any(f"{change.key}{sign}{_value(change.new)}" in text for sign in (": ", "="))


def said_by_status(lang: str) -> tuple[str, str]:
    """Reasons that say no more than the words "in patch" and "manual" beside them."""
    return catalogue.say("planner.chosen", lang), catalogue.say("planner.by_hand", lang)


def _new_value(change: ChangeView, words: Words) -> str:
    new = words("removed") if change.op == "unset" else _short(change.new)
    old = f"{_short(change.old)} → " if change.old is not None else ""
    return f"{change.key}: {old}{new}"


def _short(value: Any) -> str:
    """A value as YAML writes it; of long ones (inline DeepSpeed settings) the beginning."""
    text = _value(value)
    return text if len(text) <= VALUE_CHARS else f"{text[: VALUE_CHARS - 3]}..."


def _value(value: Any) -> str:
    """A value as YAML writes it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
