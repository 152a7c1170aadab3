"""What every reporter is, `render(report, screen) -> str`, and what the ones for people share: places, order, sparklines."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from typing import Any, Protocol

import msgspec

from doctor.core.series import BLOCKS, downsample
from doctor.core.series import sparkline as draw
from doctor.report.model import ChangeView, EvidenceView, FindingView, PatchView, RemedyView, Report, SimilarView
from doctor.words.catalogue import Words


class Screen(msgspec.Struct, frozen=True):
    """Where a report will be shown: `width` in columns, whether it takes ANSI colours, characters beyond ASCII, and links to files.

    `detail` is how much is told: -1 the verdict and what to do, 0 the usual, 1 everything there is.
    """

    width: int = 80
    color: bool = False
    unicode: bool = True
    links: bool = False
    detail: int = 0


PLAIN = Screen()


class Reporter(Protocol):
    """A report as text; ends with a newline. Formats for files ignore the screen."""

    def __call__(self, report: Report, screen: Screen = ...) -> str:
        """Renders."""
        ...


def parts(report: Report) -> tuple[list[FindingView], list[FindingView], list[FindingView], list[FindingView]]:
    """The findings as a page tells them: roots, consequences, others, notes."""
    notes = [one for one in report.findings if one.severity == "note" and one.role != "root"]
    rest = [one for one in report.findings if one not in notes]
    roots = [one for one in rest if one.role == "root"]
    return roots, [one for one in rest if one.role == "consequence"], [one for one in rest if one.role == "contributing"], notes


def verdict(report: Report, words: Words) -> tuple[str, str, str]:
    """Of a report without a root cause: its kind (fine or unknown), headline and sentence."""
    where = reached(report, words)
    steps = words("at_steps", steps=where) if where else ""
    if config_only(report):
        return "fine", words("healthy"), words("config_only")
    kind, title, sentence = {
        "failed": ("unknown", "unknown_cause", "unknown_text"),
        "interrupted": ("unknown", "interrupted", "interrupted_text"),
        "running": ("fine", "healthy", "running"),
        "completed": ("fine", "healthy", "healthy_completed"),
        "unknown": ("unknown", "end_unknown", "end_unknown_text"),
    }[report.run.status]
    return kind, words(title), words(sentence, steps=steps)


def config_only(report: Report) -> bool:
    """Nothing of a run was seen, only how it is set up: there is no end to speak of."""
    run = report.run
    return run.status == "unknown" and run.steps.last is None and all(one.kind in _SETUP for one in run.sources if one.records)


_SETUP = ("config", "command", "deepspeed")


def reached(report: Report, words: Words) -> str:
    """How far the run came: `step 120 of 500`, or nothing."""
    steps = report.run.steps
    if steps.last is None:
        return ""
    return words("step_of", step=steps.last, planned=steps.planned) if steps.planned else words("step", step=steps.last)


def run_row(report: Report, words: Words) -> list[str]:
    """The run in pieces: where, what is trained how, on how many GPUs, how it ended and how far it came."""
    run = report.run
    ranks = words("processes", count=run.world_size) if run.world_size and run.world_size > 1 else ""
    ended = "" if config_only(report) else words.run_status[run.status]
    return [
        run.path,
        run.stage or "",
        run.finetuning_type or "",
        run.model or "",
        ranks,
        words("comma").join(filter(None, (ended, reached(report, words)))),
    ]


def place(evidence: EvidenceView, words: Words) -> str:
    """`file:line`, or the file and its step."""
    if evidence.line is not None:
        return f"{evidence.source}:{evidence.line}"
    return evidence.source if evidence.step is None else words("comma").join((evidence.source, words("step", step=evidence.step)))


def span(finding: FindingView, words: Words) -> list[str]:
    """Which steps and ranks, and how often, in words."""
    out = []
    if finding.steps:
        first, last = finding.steps[0], finding.steps[-1]
        out.append(words("step", step=first) if first == last else words("steps", first=first, last=last))
    if finding.ranks:
        out.append(words("rank" if len(finding.ranks) == 1 else "ranks", ranks=ranges(finding.ranks)))
    if finding.count > 1:
        out.append(words("seen_times", count=finding.count))
    return out


def ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> `0-2, 5`."""
    out: list[list[int]] = []
    for number in sorted(numbers):
        if out and number == out[-1][1] + 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in out)


def in_guide_order(remedies: Sequence[RemedyView]) -> tuple[list[RemedyView], list[RemedyView]]:
    """The guide's steps in the guide's order (sections as they first come), and the remedies beyond it that say something here."""
    sections: list[str] = []
    for one in remedies:
        if one.guide and one.guide.section not in sections:
            sections.append(one.guide.section)
    guide = [one for one in remedies if one.guide]
    guide.sort(key=lambda one: (sections.index(one.guide.section), one.guide.step) if one.guide else (0, 0))
    return guide, [one for one in remedies if not one.guide and one.status not in ("not_applicable", "done")]


def known_failures(report: Report) -> list[tuple[str, list[SimilarView]]]:
    """Public issues that look like the failure, under what fixed them: a fix, and its issues, nearest first."""
    fixes: dict[str, dict[str, SimilarView]] = {}
    for one in sorted((one for finding in report.findings for one in finding.similar), key=lambda one: -one.score):
        fixes.setdefault(one.remedy, {}).setdefault(one.issue, one)
    return [(fix, list(issues.values())) for fix, issues in fixes.items()]


def standing(remedy: RemedyView, report: Report) -> str:
    """A remedy's status as people read it: one that applies but is not in the patch is for later."""
    patched = report.patch.changes if report.patch else []
    return "later" if remedy.status == "apply" and patched and not all(change in patched for change in remedy.changes) else remedy.status


def next_commands(report: Report) -> list[str]:
    """What to type next: write the patched config, unless that is done, and train with it."""
    patch = report.patch
    if patch is None or not patch.command:
        return []
    if report.kind == "check" and patch.yaml:
        path = shlex.quote(report.run.path)
        return [f"lfdoctor check {path} --fix", re.sub(r"(?<!\S)\S+\.(?:ya?ml|json)\b", lambda _: path, patch.command, count=1)]
    target = re.search(r"(?<!\S)\S+\.(?:ya?ml|json)\b", patch.command)
    if not patch.yaml or patch.written or not target:
        return [patch.command]
    return [f"lfdoctor analyze {shlex.quote(report.run.path)} --patch {target[0]}", patch.command]


def todo(report: Report) -> list[RemedyView]:
    """What to do about the root causes: what is in the patch, else what is to be done by hand."""
    remedies = [one for finding in parts(report)[0] for one in finding.remedies]
    chosen = [one for one in remedies if standing(one, report) == "apply" and (one.changes or report.patch is None)]
    return chosen or [one for one in remedies if standing(one, report) in ("manual", "apply")]


def launch_lines(patch: PatchView, words: Words) -> tuple[str, str]:
    """Without the run's YAML: what to say of it, and the options to give, unless the next command carries them already."""
    if patch.diff or not patch.overrides:
        return "", ""
    carried = patch.command is not None and all(one in patch.command for one in patch.overrides)
    return (words("no_yaml_command"), "") if carried else (words("no_yaml"), " ".join(patch.overrides))


def guide_titles(remedies: Sequence[RemedyView], words: Words) -> str:
    """The headings of the guide's sections these remedies come from."""
    return words("comma").join(dict.fromkeys(words.section_title[one.guide.section] for one in remedies if one.guide))


def skipped_lines(report: Report, words: Words) -> list[str]:
    """What was left unread, a reason a line."""
    return [
        words("skipped", what=words(f"skipped_{one.reason.replace(' ', '_')}"), count=one.count, examples=", ".join(one.examples))
        for one in report.run.skipped
    ]


def blind_lines(report: Report, words: Words) -> list[str]:
    """What could not be looked at, one line per missing thing, the most missed first."""
    counts = Counter(words.what_missed(one.missing) for one in report.could_not_look)
    return [words("blind_rule" if count == 1 else "blind_rules", count=count, missing=missing) for missing, count in counts.most_common()]


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
    """The lineage of a healed run: each attempt's headline, and what it changed, from where it went on, what it failed of."""
    out = []
    for one in report.attempts:
        head = words("attempt", number=one.number, outcome=words(f"attempt_{one.outcome}"), why=one.why)
        lines = [change_line(change, words) for change in one.changes]
        if one.redone is not None:
            lines.append(
                words("attempt_resumed", path=one.resumed_from, redone=one.redone)
                if one.resumed_from
                else words("attempt_fresh", redone=one.redone)
            )
        if one.cause:
            lines.append(words("attempt_cause", title=one.title, cause=one.cause, step=one.last_step or 0))
        if one.effective_batch:
            lines.append(words("attempt_batch", batch=one.effective_batch))
        out.append((head, lines))
    return out


def change_line(change: ChangeView, words: Words) -> str:
    """One change outside the YAML's diff: `environment: KEY = value (was x)`, the key and values as code."""
    done = words("removed") if change.op == "unset" else f"= `{_value(change.new)}`"
    was = f" ({words('was', old=_value(change.old))})" if change.old is not None else ""
    return f"{words(f'target_{change.target}')}: `{change.key}` {done}{was}"


def _value(value: Any) -> str:
    """A value as YAML writes it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def sparkline(series: dict[str, Any], width: int, words: Words, *, unicode: bool = True) -> list[str]:
    """A finding's series in text: what it is, its blocks (x = not finite), and carets under the steps concerned."""
    values = [float("nan") if value is None else float(value) for value in series["values"]]
    steps, shown = downsample(series["steps"], values, width)
    finite = [value for value in shown if isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    (blocks,) = draw(shown, low, high, blocks=BLOCKS if unicode else "_.-:=+*#")
    first, last = series["marks"][0], series["marks"][-1]
    inside = [i for i, step in enumerate(steps) if first <= step <= last] or [min(range(len(steps)), key=lambda i: abs(steps[i] - first))]
    marks = "".join("^" if i in inside else " " for i in range(len(steps))).rstrip()
    broken = len(shown) - len(finite)
    title = words("series", metric=series["metric"], first=steps[0], last=steps[-1], low=f"{low:.4g}", high=f"{high:.4g}")
    return [title + (words("series_broken", count=broken) if broken else ""), blocks, marks]
