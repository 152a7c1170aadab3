"""lfdoctor scan: analyze many runs."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.common import Lang, Rules, one_language, one_of, write_out
from doctor.cli.progress import progress_bar
from doctor.reporters import registry

if TYPE_CHECKING:
    from doctor.fleet.output.summary import Summary
    from doctor.fleet.scan.records import RunRecord

SUFFIX = {"terminal": ".txt", "markdown": ".md.txt", "json": ".json", "sarif": ".sarif.json", "html": ".html"}
"""Endings that a browser displays."""


def scan(
    roots: Annotated[list[str], typer.Argument(metavar="ROOT...", help="Folders that hold runs, or s3://, gs://, hdfs:// ... URLs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The table of runs; findings, page, reports and cache go next to it.", metavar="FILE")
    ] = Path("runs.parquet"),
    engine: Annotated[str, typer.Option("--engine", help="local, dask or ray.")] = "local",
    address: Annotated[str, typer.Option("--address", help="A running cluster (tcp://...).", metavar="URL")] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Runs analyzed at the same time; 0: one per processor.")] = 0,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Time limit of one run in seconds.")] = 120.0,
    memory: Annotated[float, typer.Option("--memory", min=0.2, help="Memory limit of one run in GiB.")] = 2.0,
    reports: Annotated[
        str, typer.Option("--reports", help=f"Format of each run's report: none, {', '.join(registry.NAMES)}.", metavar="FORMAT")
    ] = "markdown",
    every: Annotated[bool, typer.Option("--all", help="List healthy runs too.")] = False,
    rules: Rules = None,  # noqa: ARG001 (its callback has done it)
    lang: Lang = "en",
    fail_on: Annotated[str, typer.Option("--fail-on", help="Exit with 1 if a run failed (error), or never.")] = "error",
) -> int:
    """Analyze many runs: which failed and why, which failures repeat, and what distinguishes failed runs from good ones."""
    from doctor.fleet.scan import engines, records
    from doctor.fleet.scan.coordinator import scan as scan_all
    from doctor.fleet.scan.options import Options

    one_language(lang)
    one_of(fail_on, ("error", "never"), "--fail-on")
    one_of(reports, ("none", *registry.NAMES), "--reports")
    options = Options(
        roots=[root if "://" in root else str(Path(root)) for root in roots],
        output=output,
        engine=engines.Choice(one_of(engine, engines.NAMES, "--engine"), address, jobs),
        limits=records.Limits(timeout, memory),
        lang=lang,
        report=None if reports == "none" else f"doctor.reporters.registry:REPORTERS:{reports}",
        suffix=SUFFIX.get(reports, ".txt"),
    )
    with _Display(every, lang) as display:
        summary = scan_all(options, display)
    write_out(_summary_text(summary, lang), encoding=None)
    for path in (output, *(options.sibling(end) for end in (".findings.parquet", ".html", ".summary.json"))):
        typer.echo(f"lfdoctor: {path}", err=True)
    return int(fail_on == "error" and any(state not in ("sound", "unclear") for state in summary.states))


class _Display:
    """The progress of a scan: a bar on standard error, a line on standard output for every run that is not healthy."""

    def __init__(self, every: bool, lang: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.every, self.lang = every, lang
        self.states: Counter[str] = Counter()
        columns: tuple[Any, ...] = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = progress_bar(*columns)
        self.task = self.bar.add_task("finding runs", total=None)

    def __enter__(self) -> _Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def found(self, total: int, unchanged: int) -> None:
        self.bar.update(self.task, description=f"found {total} runs, {unchanged} unchanged")

    def planned(self, work: int) -> None:
        self.bar.update(self.task, total=work, completed=0)

    def analyzed(self, record: RunRecord | None) -> None:
        self.bar.advance(self.task)
        if record is not None and (self.every or record.failed or record.outcome != "analyzed"):
            write_out(row(record, self.lang), encoding=None)

    def note(self, text: str) -> None:
        print(f"lfdoctor: {text}", file=sys.stderr)


def row(record: RunRecord, lang: str) -> str:
    """One run in one line: state, cause, path, evidence."""
    from doctor.words import catalogue

    state = record.outcome if record.outcome != "analyzed" else {True: "failed", False: "sound", None: "unclear"}[record.failed]
    said = " ".join((record.error or record.title or "").split())
    shown = catalogue.say(f"fleet.state.{state}", lang)
    return f"{shown}\t{record.cause or '-'}\t{record.path}\t{said[:100]}\n"


def _summary_text(summary: Summary, lang: str) -> str:
    """The summary for a terminal: states, causes, clusters, what distinguishes failed runs."""
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from doctor.cli.common import screen
    from doctor.fleet.output import explanations
    from doctor.reporters.terminal.canvas import to_text
    from doctor.words import catalogue

    counts = ", ".join(f"{count} {catalogue.say('fleet.state.' + state, lang)}" for state, count in summary.states.items())
    parts: list[RenderableType] = [Text(""), Text(f"{summary.runs} {catalogue.say('fleet.say.runs', lang)}: {counts}", "bold")]
    if summary.left_out:
        parts.append(Text(catalogue.say("fleet.say.left_out", lang, count=summary.left_out)))
    for heading, lines in (
        ("causes", [(cause.count, cause.cause, cause.title) for cause in summary.causes[:20]]),
        ("clusters", [(cluster.count, cluster.id, "".join(cluster.line.splitlines()[:1])[:160]) for cluster in summary.clusters[:10]]),
    ):
        if lines:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            for count, name, text in lines:
                table.add_row(Text(str(count)), Text(name), Text(text))
            parts += [Text(f"\n{catalogue.say('fleet.say.' + heading, lang)}", "bold"), table]
    if summary.sweeps:
        parts.append(Text(f"\n{catalogue.say('fleet.say.guilty', lang)}", "bold"))
    for sweep in summary.sweeps[:10]:
        found = sweep.explanation
        parts.append(Text(f"{sweep.folder} ({catalogue.say('fleet.say.good_failed', lang, good=found.good, failed=found.failed)})"))
        sentences = [explanations.candidate(candidate, lang) for candidate in found.suspects[:3] if candidate.guilty]
        parts += [Text(f"  {line}") for line in sentences or [explanations.verdict(found, lang)]]
    return to_text([Group(*parts)], screen())
