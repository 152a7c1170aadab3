"""The interface of reporters, `render(report, screen) -> str`, and what those for people share: verdict, places, sparklines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Protocol

import msgspec

from doctor.core.series import BLOCKS, downsample
from doctor.core.series import sparkline as draw
from doctor.report.model import BlindView, EvidenceView, FindingView, Report, SeriesView, VitalsView
from doctor.support import shell
from doctor.words.catalogue import Words


class Screen(msgspec.Struct, frozen=True):
    """Where a report is shown: `width` in columns, and whether it takes ANSI colours, characters beyond ASCII, and links to files.

    `detail` is how much is told: -1 the verdict and what to do, 0 the usual, 1 everything there is.
    """

    width: int = 80
    color: bool = False
    unicode: bool = True
    links: bool = False
    detail: int = 0


PLAIN = Screen()
ASCII_BLOCKS = "_.-:=+*#"
"""Heights of a curve in text for screens without Unicode, lowest first."""


class Reporter(Protocol):
    """A report as text; ends with a newline. Formats for files ignore the screen."""

    def __call__(self, report: Report, screen: Screen = ...) -> str:
        """Renders."""
        ...


def parts(report: Report) -> tuple[list[FindingView], list[FindingView], list[FindingView], list[FindingView]]:
    """The findings by their place on a page: roots, consequences, others, notes."""
    notes = [finding for finding in report.findings if finding.severity == "note" and finding.role != "root"]
    rest = [finding for finding in report.findings if finding not in notes]
    roots = [finding for finding in rest if finding.role == "root"]
    return (
        roots,
        [finding for finding in rest if finding.role == "consequence"],
        [finding for finding in rest if finding.role == "contributing"],
        notes,
    )


def verdict(report: Report, words: Words) -> tuple[str, str, str]:
    """For a report without a root cause: its kind (`fine` or `unknown`), headline and sentence."""
    where = reached(report, words)
    steps = words("at_steps", steps=where) if where else ""
    if report.kind == "check" and report.verdict == "healthy":
        return "fine", words("healthy"), words.sentences(words("config_only"), *memory_unchecked(report, words))
    if report.verdict == "undecided" and report.run.steps.last is None:
        return "unknown", words("undecided"), _undecided(report, words)
    if report.run.status == "ended_early":
        return "fine", words("ended_early"), words("ended_early_text", steps=where)
    kind, title, sentence = {
        "failed": ("unknown", "unknown_cause", "unknown_text"),
        "interrupted": ("unknown", "interrupted", "interrupted_text"),
        "running": ("fine", "healthy", "running"),
        "completed": ("fine", "healthy", "healthy_completed"),
        "unknown": ("unknown", "end_unknown", "end_unknown_text"),
    }[report.run.status]
    return kind, words(title), words(sentence, steps=steps)


def _undecided(report: Report, words: Words) -> str:
    """The files that were read to no effect, and what would help."""
    read = words("comma").join(_shown(f"{source.path} ({source.kind})" for source in report.run.sources)) or words("no_sources")
    hint = (
        words("undecided_config", path=shell.path(report.run.path)) if any(source.kind == "config" for source in report.run.sources) else ""
    )
    return words.sentences(words("undecided_text", read=read), hint)


def _shown(names: Iterable[str]) -> list[str]:
    """The first few of many names."""
    names = list(names)
    return [*names[:UNDECIDED_FILES], *(["..."] if len(names) > UNDECIDED_FILES else [])]


UNDECIDED_FILES = 4
"""Files named in the sentence about a run that cannot be judged."""


def setup_only(report: Report) -> bool:
    """Whether only the setup of a run was read: then there is no end to speak of."""
    run = report.run
    return run.status == "unknown" and run.steps.last is None and all(source.kind in _SETUP for source in run.sources if source.records)


_SETUP = ("config", "command", "deepspeed")


def reached(report: Report, words: Words) -> str:
    """How far the run came: `step 120 of 500`, with a percentage if it ended early; empty without a step."""
    steps = report.run.steps
    if steps.last is None:
        return ""
    if not steps.planned:
        return words("step", step=steps.last)
    if report.run.status == "ended_early":
        return words("step_of_share", step=steps.last, planned=steps.planned, percent=round(100 * steps.last / steps.planned))
    return words("step_of", step=steps.last, planned=steps.planned)


def run_row(report: Report, words: Words) -> list[str]:
    """The run in pieces: path, stage, method, model, processes, end state and last step."""
    run = report.run
    ranks = words("processes", count=run.world_size) if run.world_size and run.world_size > 1 else ""
    ended = "" if setup_only(report) else words.run_status[run.status]
    return [
        run.path,
        run.stage or "",
        run.finetuning_type or "",
        run.model or "",
        ranks,
        words("comma").join(filter(None, (ended, reached(report, words)))),
    ]


def vitals(report: Report, words: Words, *, unicode: bool = True) -> list[str]:
    """The run's figures in pieces: loss, time per step, tokens, memory, duration, checkpoint; those that were not read are left out."""
    found = report.run.vitals
    if found is None:
        return []
    out = [_course(found, words, unicode=unicode)] if found.loss_first is not None else []
    out += [words("vital_pace", seconds=f"{found.seconds_per_step:.3g}")] if found.seconds_per_step else []
    out += [words("vital_tokens", count=f"{found.tokens_per_second:,.0f}")] if found.tokens_per_second else []
    out += [words("vital_peak", gib=f"{found.peak_gib:.1f}")] if found.peak_gib else []
    out += [words("vital_duration", time=_clock(found.duration_seconds, words))] if found.duration_seconds else []
    return out + ([words("vital_checkpoint", name=found.checkpoint)] if found.checkpoint else [])


def _course(found: VitalsView, words: Words, *, unicode: bool) -> str:
    """`loss 2.64 ▇▅▃▁ 1.2`; blocks only for a course of several points."""
    finite = [value for value in found.loss_points if value is not None]
    points = [float("nan") if value is None else value for value in found.loss_points]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    (blocks,) = draw(points, low, high, blocks=BLOCKS if unicode else ASCII_BLOCKS) if len(points) > 1 else ("",)
    last = words("vital_not_finite") if found.loss_last is None else f"{found.loss_last:.4g}"
    return f"loss {found.loss_first:.4g} {blocks} {last}" if len(points) > 1 else f"loss {found.loss_first:.4g}"


def _clock(seconds: float, words: Words) -> str:
    """A duration as `38 s`, `12 min 4 s` or `3 h 12 min`."""
    whole = max(1, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return words("time_hours", hours=hours, minutes=minutes)
    return words("time_minutes", minutes=minutes, seconds=whole % 60) if minutes else words("time_seconds", seconds=whole)


def place(evidence: EvidenceView, words: Words) -> str:
    """`file:line`, or the file and its step."""
    if evidence.line is not None:
        return f"{evidence.source}:{evidence.line}"
    return evidence.source if evidence.step is None else words("comma").join((evidence.source, words("step", step=evidence.step)))


def span(finding: FindingView, words: Words) -> list[str]:
    """Steps, ranks and number of matches, in words."""
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


def skipped_lines(report: Report, words: Words) -> list[str]:
    """The files that were not read, one line per reason."""
    return [
        words("skipped", what=_reason(group.reason, words), count=group.count, examples=", ".join(group.examples))
        for group in report.run.skipped
    ]


def _reason(reason: str, words: Words) -> str:
    """Why files were skipped, in words; as it is where a saved report has a reason of another release."""
    return words.say.get(f"skipped_{reason.replace(' ', '_')}", reason)


def rules_line(report: Report, words: Words) -> str:
    """How many of the rules ran."""
    return words("rules_looked", looked=report.rules_looked, total=report.rules_looked + len(report.could_not_look))


def blind_lines(report: Report, words: Words) -> list[str]:
    """The rules that were not checked, one line per missing input, the most missed first; the memory of a checked config before them."""
    counts = Counter(words.what_missed(unchecked.missing) for unchecked in report.could_not_look if not _of_memory(unchecked))
    return [
        *(words("blind_memory", missing=missing) for missing in _missing_for_memory(report, words)),
        *(words("blind_rule" if count == 1 else "blind_rules", count=count, missing=missing) for missing, count in counts.most_common()),
    ]


def _of_memory(unchecked: BlindView) -> bool:
    """Whether `check` misses this input for its memory estimate."""
    return unchecked.missing.partition(".")[0] in ("gpu_memory", "model_size", "model_name")


def _missing_for_memory(report: Report, words: Words) -> list[str]:
    return list(dict.fromkeys(words.what_missed(unchecked.missing) for unchecked in report.could_not_look if _of_memory(unchecked)))


def memory_unchecked(report: Report, words: Words) -> list[str]:
    """Sentences on what `check` missed for its memory estimate."""
    return [words("memory_unchecked", missing=missing) for missing in _missing_for_memory(report, words)]


def other_run_lines(report: Report, words: Words) -> list[str]:
    """What else lies in the folder: which run this report is about, how to see all, and the other runs' paths."""
    if not report.other_runs:
        return []
    paths = [report.run.path, *(other.path for other in report.other_runs)]
    try:
        folder = os.path.commonpath(paths)
    except ValueError:  # absolute and relative paths mixed, or other drives
        folder = report.run.path
    folder = folder or "."
    known = (f"{other.path} ({words.run_status[other.status]})" if other.status != "unknown" else other.path for other in report.other_runs)
    return [words("other_runs_scan", path=report.run.path, folder=shell.path(folder)), *known]


def sparkline(series: SeriesView, width: int, words: Words, *, unicode: bool = True) -> list[str]:
    """A finding's series in text: title, blocks (x = not finite), carets under the affected steps."""
    values = [float("nan") if value is None else float(value) for value in series.values]
    steps, shown = downsample(series.steps, values, width)
    finite = [value for value in shown if isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    (blocks,) = draw(shown, low, high, blocks=BLOCKS if unicode else ASCII_BLOCKS)
    first, last = series.marks[0], series.marks[-1]
    inside = [i for i, step in enumerate(steps) if first <= step <= last] or [min(range(len(steps)), key=lambda i: abs(steps[i] - first))]
    marks = "".join("^" if i in inside else " " for i in range(len(steps))).rstrip()
    broken = len(shown) - len(finite)
    title = words("series", metric=series.metric, first=steps[0], last=steps[-1], low=f"{low:.4g}", high=f"{high:.4g}")
    return [title + (words("series_broken", count=broken) if broken else ""), blocks, marks]
