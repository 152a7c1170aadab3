"""lfdoctor rules: list rules, test a folder of rules, draft a rule, print the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.common import Lang, one_language, one_of, screen, write_out
from doctor.errors import DoctorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doctor.fleet.output.draft import Draft
    from doctor.rulebook.model import Rule, Rulebook

app = typer.Typer(help="The rules: list them, test a folder of them, print their schema.", no_args_is_help=True)


def load_rules(folder: Path | None = None) -> tuple[Rulebook, Mapping[str, Any]]:
    """All rules (shipped, from plugins, from `folder`) and all detectors. Raises DoctorError at the first bad file."""
    from doctor import plugins
    from doctor.detectors.registry import DETECTORS
    from doctor.rulebook import loader

    added = plugins.load()
    detectors = {**added.detectors, **DETECTORS}
    folders = [*added.rules, *([folder] if folder else [])]
    return loader.load(folders, detectors=detectors if folders else None), detectors


def _families(incomplete: str) -> list[str]:
    """The families that begin so, for a shell's completion."""
    return sorted({rule.family for rule in load_rules()[0].rules if rule.family.startswith(incomplete)})


@app.command("list")
def list_rules(
    kind: Annotated[str, typer.Option("--format", "-f", help="table or json.", metavar="FORMAT")] = "table",
    family: Annotated[
        str, typer.Option("--family", help="Only rules of this family (memory, stability, ...).", autocompletion=_families)
    ] = "",
    lang: Lang = "en",
) -> None:
    """List all rules: id, severity, cause, title."""
    one_language(lang)
    known = load_rules()[0].rules
    if family:
        one_of(family, sorted({rule.family for rule in known}), "--family")
    rules = [rule for rule in known if family in ("", rule.family)]
    if one_of(kind, ("table", "json"), "--format") == "json":
        keys = ("id", "cause", "symptom", "severity", "status", "confidence")
        rows = [{**{key: getattr(rule, key) for key in keys}, "title": rule.title.get(lang)} for rule in rules]
        write_out(json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
    else:
        write_out(_table(rules, lang), encoding=None)


def _table(rules: list[Rule], lang: str) -> str:
    from rich.table import Table
    from rich.text import Text

    from doctor.reporters.terminal.canvas import COLOURS, to_text
    from doctor.support.wrapping import Flowing
    from doctor.words.catalogue import load

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for no_wrap in (True, True, False):
        table.add_column(no_wrap=no_wrap, overflow="fold")
    said = load(lang)
    for rule in rules:
        table.add_row(Text(rule.id), Text(said.severity[rule.severity], COLOURS[rule.severity]), Flowing(rule.title.get(lang)))
    return to_text([table], screen())


@app.command("test")
def test_rules(folder: Annotated[Path, typer.Argument(help="A folder of <family>/<name>.yaml.")]) -> int:
    """Run the examples and lints of a folder's rules; exit code 1 if any fails."""
    if not folder.is_dir():
        raise DoctorError(f"{folder}: no such folder")
    from doctor.diagnosis.rule_examples import check_rule
    from doctor.diagnosis.rule_lints import lint_file, lint_rule
    from doctor.rulebook.parsing import rule_files
    from doctor.support.package_files import rules_folder

    wanted = {f"{path.parent.name}/{path.stem}": path for path in rule_files(folder)}
    if not wanted:
        raise DoctorError(f"{folder}: no rules here; they belong in <family>/<name>.yaml")
    own = folder.resolve() == rules_folder().resolve()
    book, detectors = load_rules(None if own else folder)
    rules = [rule for rule in book.rules if rule.id in wanted]
    failures = [f"{rule.id}: {problem}" for rule in rules for problem in check_rule(rule, detectors, book)]
    lints = [f"{rule.id}: {problem}" for rule in rules for problem in (*lint_rule(rule, detectors), *lint_file(wanted[rule.id]))]
    examples = [rule.examples for rule in rules]
    count = sum(len(group.match) + len(group.no_match) + len(group.fix) for group in examples)
    write_out(
        "".join(f"{problem}\n" for problem in (*failures, *lints))
        + f"{len(wanted)} rules, {count} examples, {len(failures)} failed, {len(lints)} lints\n",
        encoding=None,
    )
    return int(bool(failures or lints))


@app.command("draft")
def draft_rule(
    source: Annotated[
        str, typer.Argument(metavar="REPORT|CLUSTER", help="A JSON report (*.json), or a cluster's id (or a fingerprint) from a scan.")
    ],
    scan: Annotated[Path, typer.Option("--scan", help="The table of the scan, for a cluster.", metavar="FILE")] = Path("runs.parquet"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it into this folder of rules instead of standard output.", metavar="DIR")
    ] = None,
) -> None:
    """Draft a rule from a report of a failure that no rule knows yet, or from a cluster of such failures."""
    from doctor.cli.common import write_file
    from doctor.fleet.output import draft

    made = draft.of_report(Path(source)) if source.endswith(".json") else _of_cluster(source, scan)
    for problem in draft.problems(made):
        typer.echo(f"lfdoctor: {problem}", err=True)
    if output is None:
        write_out(made.text)
        return
    path = output / f"{made.id}.yaml"
    if path.exists():
        raise DoctorError(f"{path}: this file exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, made.text)
    typer.echo(f"lfdoctor: {path}; complete it, then run: lfdoctor rules test {output}", err=True)


def _of_cluster(cluster: str, scan: Path) -> Draft:
    from doctor.fleet.output import draft, summary
    from doctor.fleet.output.clusters import find

    clusters = summary.read(scan).clusters
    found = find(clusters, cluster)
    if found is None:
        known = ", ".join(known.id for known in clusters[:20]) or "none"
        raise DoctorError(f"{scan}: no cluster {cluster!r} in this scan (there are: {known})")
    return draft.draft(found, clusters)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a rule file, for editors."""
    from doctor.detectors.registry import DETECTORS
    from doctor.rulebook.model import Rule
    from doctor.support.json_schema import schema_of

    full = schema_of(Rule, "A rule of lfdoctor")
    parts = full["$defs"]
    rule = parts["Rule"]["properties"]
    use = {"type": "object", "required": ["use"], "properties": {**parts["Remedy"]["properties"], "use": {"type": "string"}}}
    rule["remedies"] = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Remedy"}, use, {"type": "string"}]}}
    rule["when"] |= {"propertyNames": {"enum": sorted(DETECTORS)}, "minProperties": 1, "maxProperties": 1}
    write_out(json.dumps(full, ensure_ascii=False, indent=2) + "\n")
