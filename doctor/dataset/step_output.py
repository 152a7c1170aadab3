"""The samples of optimizer steps as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec

from doctor.dataset.findings import written
from doctor.dataset.step_rows import StepReport, StepRow
from doctor.words.catalogue import say


def to_json(report: StepReport) -> str:
    """The report as it is; ranks count from 0, batches of the accumulation from 1."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def to_text(report: StepReport, lang: str, folder: Path, *, markdown: bool = False) -> str:
    """One line a sample, of each step the longest first; then what must hold for them to be right."""
    first, last = report.steps
    steps = str(first) if first == last else f"{first}-{last}"
    name = "data.say.step_title_one" if report.world == 1 else "data.say.step_title"
    heading = say(name, lang, steps=steps, config=report.config, world=report.world)
    mark, bullet = ("# ", "* ") if markdown else ("", "  ")
    lines = [mark + heading, ""] if markdown else [heading]
    lines += [bullet + _row(row, lang, folder, several=first != last) for row in report.rows]
    if report.lengths_unknown:
        lines += ["", say("data.say.lengths_unknown", lang, reason=say(f"data.unknown.{report.lengths_unknown}", lang))]
    return "\n".join([*lines, "", say("data.say.step_compare", lang, samples=report.samples, total=report.total_steps)]) + "\n"


def _row(row: StepRow, lang: str, folder: Path, *, several: bool) -> str:
    parts = [say("data.say.step_number", lang, step=row.step)] if several else []
    parts += [written(row.place, folder)]
    parts += [say("data.say.tokens", lang, tokens=row.tokens)] if row.tokens is not None else []
    return "  ".join([*parts, say("data.say.step_row", lang, rank=row.rank, batch=row.batch)])
