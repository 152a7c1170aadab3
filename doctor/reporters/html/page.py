"""The data that the page's template asks for, in one language; the markup is in page.html."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from doctor.report.model import EvidenceView, FindingView, PatchView, RemedyView, Report
from doctor.reporters import advice, base, excerpt
from doctor.reporters.html.charts import Chart, charts, constants
from doctor.reporters.html.diff import Row, side_by_side
from doctor.words.catalogue import Words

SYMBOLS = {"error": "✗", "warning": "!", "note": "i", "fine": "✓", "unknown": "?"}
ADVICE = {"apply": "✔", "later": "▹", "done": "✓", "not_applicable": "–", "conflict": "⇄", "rejected": "✗", "manual": "✎"}
_PHASES = ("start", "tokenise", "load", "train", "eval", "save", "predict", "export", "end")
_BEFORE, _TRAINING = 16.0, 84.0
"""Per cent of the timeline for the time before the first step, and for the steps."""
_PIN = 2.6
"""Per cent of the timeline that a pin covers on a wide screen."""


class Incident(msgspec.Struct, frozen=True):
    """A point on the timeline: place (per cent), kind, title, time in words, and the anchor of its finding."""

    at: float
    kind: str
    title: str
    when: str
    target: str | None = None


class Page:
    """One report in one language."""

    def __init__(self, report: Report, words: Words) -> None:
        self.report = report
        self.words = words
        self.lang = words.lang
        self.roots, self.followed, self.others, self.notes = base.parts(report)
        self.kind, self.headline, self.sentence = self._verdict()

    def _verdict(self) -> tuple[str, str, str]:
        if self.roots:
            return self.roots[0].severity, self.roots[0].title, self.roots[0].text
        return base.verdict(self.report, self.words)

    @property
    def symbol(self) -> str:
        """The verdict's symbol."""
        return SYMBOLS[self.kind]

    def say(self, name: str, **values: object) -> str:
        """A sentence of the words."""
        return self.words(name, **values)

    def run_row(self) -> list[str]:
        """The run in pieces."""
        return [piece for piece in base.run_row(self.report, self.words) if piece]

    def figures(self) -> list[tuple[str, str]]:
        """The run's figures, each with its name."""
        return base.figures(self.report, self.words)

    def excerpts(self) -> dict[str, str]:
        """The texts of the buttons "copy as issue" and "copy for a chat"."""
        return {"issue": excerpt.issue(self.report, self.words), "chat": excerpt.chat(self.report, self.words)}

    def todo(self) -> list[RemedyView]:
        """Remedies of the root causes that are in the patch or manual."""
        return advice.todo(self.report)

    def values(self, remedy: RemedyView) -> str:
        """The keys that a remedy changes, with their values."""
        return advice.new_values(remedy, self.words)

    def commands(self) -> list[str]:
        """What to type next."""
        return advice.next_commands(self.report)

    def place(self, piece: EvidenceView) -> str:
        """File and line of a quote."""
        return base.place(piece, self.words)

    def pieces(self, text: str, mark: str | None) -> Iterator[tuple[str, bool]]:
        """A quote in pieces, each with whether it is the deciding one."""
        place = text.find(mark) if mark else -1
        if place < 0 or not mark:
            yield text, False
            return
        start = text.rfind("\n", 0, place) + 1
        stop = text.find("\n", place)
        stop = len(text) if stop < 0 else stop
        whole = stop - start <= 160
        start, stop = (start, stop) if whole else (place, min(len(text), place + len(mark)))
        yield from ((text[:start], False), (text[start:stop], True), (text[stop:], False))

    def code(self, text: str) -> Iterator[tuple[str, bool]]:
        """A sentence in pieces, each with whether it is code (in backticks)."""
        pieces = text.split("`")
        if len(pieces) % 2 == 0:
            pieces = [text]
        yield from ((piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece)

    def span(self, finding: FindingView) -> list[str]:
        """Steps and ranks in words."""
        return base.span(finding, self.words)

    def steps_of(self, finding: FindingView) -> list[tuple[str, str, RemedyView]]:
        """The remedies in the report's order with their label and status."""
        labelled = advice.in_groups(finding.remedies).labelled(self.words)
        return [(label, advice.standing(remedy, self.report), remedy) for label, remedy in labelled]

    def advice(self, standing: str) -> str:
        """A status in words, with its symbol."""
        return f"{ADVICE[standing]} {self.words.advice[standing]}"

    def intro(self, finding: FindingView) -> str:
        """In which order they stand, and from which chapters of the guide."""
        return advice.in_groups(finding.remedies).intro(self.words)

    # --- patch

    def diff(self, patch: PatchView) -> list[Row]:
        """The patch side by side."""
        return side_by_side(patch.diff or "")

    def elsewhere(self, patch: PatchView) -> list[str]:
        """Changes outside the YAML."""
        changes = [change for change in patch.changes if change.target != "config" or patch.diff is None]
        return [advice.change_line(change, self.words) for change in changes]

    def launch(self, patch: PatchView) -> tuple[str, str]:
        """What to say if the YAML was not found."""
        return advice.launch_lines(patch, self.words)

    def predicted(self, patch: PatchView) -> list[str]:
        """What the patch is predicted to do."""
        return advice.predicted_lines(patch, self.words)

    def memory(self, patch: PatchView) -> dict[str, Any] | None:
        """The stacked bars before and after: name, GiB and share of each part; the GPU's capacity as a mark."""
        view = patch.predicted.memory_gib
        if view is None or view.terms is None:
            return None
        totals = [sum(parts.values()) for parts in view.terms.values()]
        scale = max([*totals, view.capacity or 0.0, view.high or 0.0]) * 1.04 or 1.0
        names = list(dict.fromkeys(name for parts in view.terms.values() for name in parts))
        bars = [
            (
                self.say(f"html_{when}"),
                sum(parts.values()),
                [(names.index(name), name, gib, 100 * gib / scale) for name, gib in parts.items()],
            )
            for when, parts in (("before", view.terms["before"]), ("after", view.terms["after"]))
        ]
        rows = [(number, name, *(view.terms[when].get(name) for when in ("before", "after"))) for number, name in enumerate(names)]
        edge = 100 * view.capacity / scale if view.capacity else None
        return {"bars": bars, "rows": rows, "edge": edge, "capacity": view.capacity}

    def term(self, name: str) -> str:
        """The name of a part of the memory."""
        known = f"term_{name}"
        return self.say(known) if known in self.words.say else name

    # --- plots

    def charts(self) -> list[tuple[int, str, str]]:
        """The plots: number, title, summary."""
        return [(number, self.title(chart), self.summary(chart)) for number, chart in enumerate(charts(self.report))]

    def constants(self) -> str:
        """The metrics that no plot shows because they had one value throughout."""
        return self.words("comma").join(f"`{metric}` {value:.4g}" for metric, value in constants(self.report).items())

    def title(self, chart: Chart) -> str:
        """A plot's title with its unit."""
        name = self.say(chart.name) if chart.name in self.words.say else chart.name
        return f"{name} ({chart.unit})" if chart.unit else name

    def summary(self, chart: Chart) -> str:
        """Lowest and highest value of every curve in words, for readers who cannot see the plot."""
        out = []
        for curve in self.report.curves:
            values = [value for value in curve.values if value is not None]
            if curve.metric in chart.metrics and curve.over == chart.over and values:
                say = "series" if curve.over == "steps" else "html_reading"
                text = self.say(
                    say, metric=curve.metric, first=curve.at[0], last=curve.at[-1], low=f"{min(values):.4g}", high=f"{max(values):.4g}"
                )
                broken = len(curve.values) - len(values)
                out.append(text + (self.say("series_broken", count=broken) if broken else ""))
        return "; ".join(out[:6])

    # --- timeline

    def timeline(self) -> list[Incident]:
        """What happened, in order: the beginning of training, new attempts, every finding, and how it ended."""
        run = self.report.run
        out = []
        if run.steps.first is not None:
            out.append(Incident(_BEFORE, "fine", self.say("html_training_began"), str(run.steps.first)))
        for curve in self.report.curves:
            if curve.metric == "loss" and curve.attempt and curve.at:
                out.append(Incident(self._at(curve.at[0]), "note", self.say("html_restarted"), self.say("step", step=curve.at[0])))
        for number, incident in enumerate(self.report.findings):
            if incident.severity != "note":
                when = ", ".join(self.span(incident)[:1]) if incident.steps else self.words.phase.get(incident.phase or "", "")
                out.append(Incident(self._place(incident), incident.severity, incident.title, when, f"f{number}"))
        end = {"completed": "fine", "ended_early": "warning", "failed": "error", "interrupted": "warning"}.get(run.status, "unknown")
        if not base.setup_only(self.report):
            out.append(Incident(self._end(), end, self.words.run_status[run.status], base.reached(self.report, self.words)))
        return spread(sorted(out, key=lambda incident: incident.at))

    def number(self, finding: FindingView) -> int:
        """A finding's place in the report: its anchor."""
        return self.report.findings.index(finding)

    def reached(self) -> tuple[float, float]:
        """Where the run's steps begin and how far they came, per cent of the timeline."""
        return _BEFORE, self._last()

    def _at(self, step: int) -> float:
        steps = self.report.run.steps
        whole = max(steps.planned or 0, steps.last or 0, 1)
        return _BEFORE + _TRAINING * min(step, whole) / whole

    def _last(self) -> float:
        last = self.report.run.steps.last
        return _BEFORE if last is None else self._at(last)

    def _end(self) -> float:
        return 100.0 if self.report.run.status == "completed" else min(100.0, self._last() + 2.5)

    def _place(self, finding: FindingView) -> float:
        if finding.steps:
            return self._at(finding.steps[0])
        if finding.family in ("config", "environment") and finding.phase is None:
            return 2.0
        phase = finding.phase if finding.phase in _PHASES else None
        if phase in ("start", "tokenise", "load"):
            return {"start": 2.0, "tokenise": 6.0, "load": 11.0}[phase]
        return self._last()

    # --- bottom

    def environment(self) -> list[tuple[str, str]]:
        """Software and machine, as they were found."""
        return [(name, f"{value:g}" if isinstance(value, float) else str(value)) for name, value in self.report.run.environment.items()]

    def rules(self) -> str:
        """How many of the rules ran."""
        return base.rules_line(self.report, self.words)

    def blind(self) -> list[str]:
        """The rules that were not checked."""
        return base.blind_lines(self.report, self.words)

    def other_runs(self) -> list[str]:
        """The other runs in the folder."""
        return base.other_run_lines(self.report, self.words)

    def troubles(self) -> list[str]:
        """Errors while reading."""
        return [f"{source.path}: {problem}" for source in self.report.run.sources for problem in source.problems] + self.report.problems

    def time(self) -> str:
        """Where the time of a job of `lfdoctor run` went."""
        return base.time_line(self.report, self.words)

    def attempts(self) -> list[tuple[str, list[str]]]:
        """The attempts of a healed run."""
        return advice.attempt_lines(self.report, self.words)

    def samples(self, finding: FindingView) -> tuple[str, list[str]]:
        """The samples of the step that failed: a heading and a line each."""
        return advice.sample_lines(finding, self.words)

    def candidates(self, finding: FindingView) -> list[tuple[str, str, str]]:
        """Possible causes of a failure that no rule lists: title, what speaks for it, what would confirm it."""
        return advice.candidate_lines(finding, self.words)

    def known(self) -> list[tuple[str, list[tuple[str, str, float]]]]:
        """Similar known failures: a fix, and the name, address and score of each issue."""
        known = advice.known_failures(self.report)
        return [(fix, [(issue.issue, _address(issue.issue), issue.score) for issue in issues]) for fix, issues in known]


def _address(issue: str) -> str:
    owner, _, number = issue.partition("#")
    whole = re.fullmatch(r"[\w.-]+/[\w.-]+", owner) and number.isdecimal()
    return f"https://github.com/{owner}/issues/{number}" if whole else ""


def spread(incidents: list[Incident]) -> list[Incident]:
    """Incidents, sorted by place, moved apart as little as needed to read every pin; none leaves the timeline."""
    gap = min(_PIN, 100.0 / max(1, len(incidents)))
    places: list[float] = []
    for incident in incidents:
        places.append(max(incident.at, places[-1] + gap) if places else incident.at)
    limit = 100.0
    for number in reversed(range(len(places))):
        places[number] = min(places[number], limit)
        limit = places[number] - gap
    return [msgspec.structs.replace(incident, at=place) for incident, place in zip(incidents, places, strict=True)]
