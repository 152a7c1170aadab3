"""lfdoctor compare: what changed between runs, and which change explains the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from doctor.cli.common import Lang, Output, one_language, one_of, say_written, screen, write_file, write_out

if TYPE_CHECKING:
    from doctor.fleet.attribution.compare import Compared

FORMATS = ("terminal", "json", "html")
"""Allowed values of --format."""

COLUMNS = 6
"""Maximum number of runs side by side in a terminal; with more runs only what distinguishes them is shown."""


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders or logs, or the table of a scan (.parquet).")],
    kind: Annotated[str, typer.Option("--format", "-f", help=f"One of {', '.join(FORMATS)}.", metavar="FORMAT")] = "terminal",
    output: Output = None,
    lang: Lang = "en",
) -> None:
    """Compare runs: what differs, which difference explains the failures, and the learning curves on one scale."""
    one_of(kind, FORMATS, "--format")
    one_language(lang)
    from doctor.fleet.attribution.compare import compare as compare_all

    compared = compare_all(runs, lang=lang)
    text = _json(compared) if kind == "json" else (_html if kind == "html" else _terminal)(compared, lang)
    if output is not None:
        write_file(output, text)
        say_written(output)
    else:
        write_out(text, encoding=None if kind == "terminal" else "utf-8")


def _json(compared: Compared) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(compared), indent=2).decode() + "\n"


def _html(compared: Compared, lang: str) -> str:
    from doctor.fleet.attribution.curves import picture
    from doctor.fleet.output import page

    heads = [
        {"name": run.path, "status": run.status, "cause": run.cause, "state": "failed" if run.failed else "sound"} for run in compared.runs
    ]
    drawn = picture(compared.curves())
    return "".join(
        page.pieces("compare.html", lang, runs=heads, differences=compared.differences, explanation=compared.explanation, picture=drawn)
    )


def _terminal(compared: Compared, lang: str) -> str:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from doctor.fleet.attribution.curves import blocks
    from doctor.fleet.output import explanations
    from doctor.reporters.terminal.canvas import to_text
    from doctor.words import catalogue

    found = compared.explanation
    parts: list[RenderableType] = []
    for place, run in enumerate(compared.runs[: 3 * COLUMNS], 1):
        parts.append(Text(f"{place}. {run.path}: {run.status}{f', {run.cause}' if run.cause else ''}"))
    counts = catalogue.say("fleet.say.good_failed", lang, good=found.good, failed=found.failed)
    parts.append(Text(f"\n{catalogue.say('fleet.say.guilty', lang)} ({counts})", "bold"))
    if found.verdict != "found":
        parts.append(Text(explanations.verdict(found, lang)))
    parts += [
        Text(explanations.candidate(candidate, lang), "" if candidate.guilty else "dim")
        for candidate in found.suspects[:8]
        if candidate.guilty or len(compared.runs) > COLUMNS
    ]
    if len(compared.runs) <= COLUMNS:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for head in (catalogue.say("fleet.say.differences", lang), *(str(place) for place in range(1, len(compared.runs) + 1))):
            table.add_column(Text(head), overflow="fold")
        for difference in compared.differences:
            cells = [Text("" if value is None else str(value)) for value in difference.values]
            table.add_row(Text(f"{difference.key}{' *' if difference.named else ''}"), *cells)
        parts += [Text(""), table]
        if any(difference.named for difference in compared.differences):
            parts.append(Text(f"* {catalogue.say('fleet.say.named_first', lang)}", "dim"))
    lines = blocks(compared.curves()[: 3 * COLUMNS])
    if lines:
        parts.append(Text(f"\n{catalogue.say('fleet.say.curves', lang)} ({catalogue.say('fleet.say.loss', lang)})", "bold"))
        parts += [Text(f"{place:3}. {line}") for place, (_, line) in enumerate(lines, 1)]
    return to_text([Group(*parts)], screen())
