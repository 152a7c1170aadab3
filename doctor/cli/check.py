"""lfdoctor check: check training configurations before the run; --fix writes what is certain."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer

from doctor.cli.analyze import FAIL_ON
from doctor.cli.common import (
    ExitZero,
    FailOn,
    Format,
    Lang,
    LlamaFactoryVersion,
    Output,
    Quiet,
    Rules,
    Translations,
    Verbose,
    emit,
    one_language,
    one_of,
    say_written,
    screen,
    write_file,
    write_out,
)
from doctor.errors import BAD_USAGE, DoctorError
from doctor.reporters import registry
from doctor.support.optional import installed_version

if TYPE_CHECKING:
    from doctor.planner.config_fixes import FixedConfig
    from doctor.report.model import PatchView, Report
    from doctor.support.texts import Text

JOINED = ("json", "sarif", "concise", "github")
"""Formats in which the reports of several files become one document."""


def check(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="Training YAML files, or launch scripts.")],
    kind: Format = "terminal",
    output: Output = None,
    fix: Annotated[bool, typer.Option("--fix", help="Correct what is certain, in place; the original is kept as CONFIG.orig.")] = False,
    unsafe_fixes: Annotated[
        bool, typer.Option("--unsafe-fixes", help="With --fix or --diff: also the rest of the report's patch, such as removed keys.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would change and write nothing.")] = False,
    skip_foreign: Annotated[bool, typer.Option("--skip-foreign", help="Skip files that are not LLaMA-Factory configurations.")] = False,
    folder: Annotated[Path, typer.Option("--folder", help="The folder in which the training will be started.")] = Path(),
    gpu_memory: Annotated[float | None, typer.Option("--gpu-memory", help="Memory of one GPU in GiB.")] = None,
    num_gpus: Annotated[int | None, typer.Option("--num-gpus", help="Number of GPUs.")] = None,
    llamafactory_version: LlamaFactoryVersion = None,
    data: Annotated[
        bool, typer.Option("--data", help="Also look into the data sets (the first 20,000 rows of each; all: lfdoctor data).")
    ] = False,
    rules: Rules = None,  # noqa: ARG001 (its callback has done it)
    watch: Annotated[bool, typer.Option("--watch", help="Check again whenever a file changes, until Ctrl-C.")] = False,
    lang: Lang = "en",
    fail_on: FailOn = "error",
    exit_zero: ExitZero = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    translations: Translations = False,
) -> int:
    """Check training configs before the run: what LLaMA-Factory would refuse or fail on, what is wrong on disk, whether it fits in memory.

    Errors are what the LLaMA-Factory meant refuses: that of --llamafactory-version, else the installed one, else every one of the last
    year. A file that is not a LLaMA-Factory configuration is refused with exit code 2 and never changed.
    """
    one_of(kind, registry.NAMES, "--format")
    one_language(lang)
    severities = () if exit_zero else FAIL_ON[one_of(fail_on, FAIL_ON, "--fail-on")]
    if output is not None and len(configs) > 1 and kind not in JOINED:
        raise DoctorError(_text("errors.several_reports", formats=", ".join(JOINED)))
    if data and (kind != "terminal" or output is not None):
        raise DoctorError(_text("errors.data_terminal"))
    if watch and (fix or output is not None):
        raise DoctorError(_text("errors.watch_alone"))
    about = {"folder": folder, "gpu_memory_gib": gpu_memory, "num_gpus": num_gpus, "lang": lang}
    about["llamafactory_version"] = llamafactory_version or installed_version("llamafactory")
    work = _Work(fix, diff, unsafe_fixes, about)
    rows = (lambda path: _data(path, folder, lang, num_gpus or 1, detail=verbose - quiet)) if data else None

    def once() -> int:
        reports, pages, code = _checked(configs, work, rows, severities, skip_foreign=skip_foreign, stay=watch, ignore_diff=exit_zero)
        if not diff:
            joined = len(configs) > 1 and kind in JOINED
            _emit_all(reports, kind, output, joined=joined, quiet=quiet, verbose=verbose, translations=translations)
        for page in pages:
            write_out(f"\n{page}", encoding=None)
        return code

    return whenever_changed(configs, once) if watch else once()


POLL_SECONDS = 0.5
"""Between two looks at the files with `--watch`."""


def whenever_changed(paths: Sequence[Path], once: Callable[[], int], sleep: Callable[[float], None] | None = None) -> NoReturn:
    """Call `once` now and whenever one of the files has changed, appeared or gone, until Ctrl-C (KeyboardInterrupt)."""
    seen: list[tuple[int, int] | None] | None = None
    while True:
        now = [_stamp(path) for path in paths]
        if now != seen:
            seen = now
            once()
        (sleep or time.sleep)(POLL_SECONDS)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _checked(
    configs: Sequence[Path],
    work: _Work,
    rows: Callable[[Path], tuple[str, set[str]]] | None,
    severities: Sequence[str],
    *,
    skip_foreign: bool,
    stay: bool,
    ignore_diff: bool,
) -> tuple[list[Report], list[str], int]:
    """The reports of the files, the pages about their data sets, the exit code. A file that cannot be checked is told on stderr.

    With one file the error is raised, unless `stay`.
    """
    from doctor.readers.command import is_script

    reports: list[Report] = []
    pages: list[str] = []
    code = 0
    for path in configs:
        try:
            report, differs = work.check(path)
        except DoctorError as error:
            if not (skip_foreign and isinstance(error, _Foreign)):
                code = _report(error, work.about["lang"], alone=len(configs) == 1 and not stay)
            continue
        code = max(code, int((differs and not ignore_diff) or any(finding.severity in severities for finding in report.findings)))
        reports.append(report)
        if rows is not None and not is_script(path):
            page, worst = rows(path)
            pages.append(page)
            code = max(code, int(bool(worst & set(severities))))
    return reports, pages, code


DATA_ROWS = 20_000
"""Rows of each data set that `--data` looks at: a few seconds."""


def _data(path: Path, folder: Path, lang: str, gpus: int, *, detail: int) -> tuple[str, set[str]]:
    """What `lfdoctor data` says of the file, and the severities of its findings."""
    from doctor.dataset.inspect import Look, inspect
    from doctor.dataset.output import to_terminal

    report = inspect(_load(path)[1], folder, Look(rows=DATA_ROWS, near=False, gpus=gpus), name=str(path))
    page = to_terminal(report, lang, folder, unicode=screen().unicode, detail=detail)
    return page, {finding.severity for finding in report.findings}


def _emit_all(reports: list[Report], kind: str, output: Path | None, *, joined: bool, **shown: bool) -> None:
    if not joined:
        for report in reports:
            emit(report, kind, output, pager=False, **shown)
        return
    text = _joined(reports, kind, translations=shown["translations"])
    if output is None:
        write_out(text)
    else:
        write_file(output, text)
        say_written(output)


class _Work(NamedTuple):
    """The work on each file; `about` are the arguments of diagnosis.check."""

    fix: bool
    diff: bool
    unsafe_fixes: bool
    about: dict[str, Any]

    def check(self, path: Path) -> tuple[Report, bool]:
        """The report of a file (after --fix, of the fixed file), and whether --diff showed a change."""
        from doctor.diagnosis.check import check as run_analysis
        from doctor.readers.command import is_script

        text, values = _load(path) if not is_script(path) else ("", {})
        report = run_analysis(path, **self.about)
        if is_script(path) and not any(source.records for source in report.run.sources):
            raise _Foreign(_text("errors.no_training_command", path=str(path)))
        if not (self.fix or self.diff) or is_script(path):
            return report, False
        differs = False
        made = _fixed(path, text, values, report.patch if self.unsafe_fixes else None, self.about["llamafactory_version"])
        if self.diff:
            write_out(_diff(path, text, made.text), encoding=None)
            differs = made.text != text
        backup = ""
        if not self.diff and made.text != text:
            backup = _write(path, made.text).name
            report = run_analysis(path, **self.about)
        _summarise(path, report, made, self.about["lang"], written=not self.diff, backup=backup)
        return report, differs


class _Foreign(DoctorError):
    """The file belongs to another program."""


def _report(error: DoctorError, lang: str, *, alone: bool) -> int:
    """Print on stderr why a file was not checked; with a single file raise the error."""
    if alone:
        raise error
    typer.echo(f"lfdoctor: {' '.join(error.in_language(lang).split())}", err=True)
    return BAD_USAGE


def _load(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and options of a LLaMA-Factory configuration. Raises DoctorError (2) for every other file."""
    from doctor.config import files
    from doctor.config.option_names import known_somewhere
    from doctor.config.recognise import shape_of

    text = files.read_text(path)
    values = files.parse(path, text)
    if shape_of(values) is None:
        known = sum(map(known_somewhere, values))
        raise _Foreign(_text("errors.foreign", path=path, known=known, count=len(values)))
    return text, values


def _fixed(path: Path, text: str, values: Mapping[str, Any], patch: PatchView | None, version: str | None) -> FixedConfig:
    """The file after its safe fixes, with a patch also after what of it can be written here."""
    from doctor.config.patch import Change
    from doctor.planner.config_fixes import fixed
    from doctor.planner.types import ConfigText

    views = patch.changes if patch else []
    changes = [Change(view.target, view.op, view.key, view.old, view.new) for view in views]  # type: ignore[arg-type]
    return fixed(ConfigText(str(path), text), values, changes, patch.because if patch else {}, {"versions.llamafactory": version})


def _write(path: Path, text: str) -> Path:
    """Replace the file; keep what it was as NAME.orig, or NAME.orig.2 ... beside other backups. Returns the backup. Raises DoctorError."""
    try:
        before = path.read_bytes()
        names = (path.with_name(f"{path.name}.orig{f'.{number}' if number > 1 else ''}") for number in count(1))
        backup = next(name for name in names if not name.exists() or (name.is_file() and name.read_bytes() == before))
        backup.write_bytes(before)
        path.write_bytes(text.encode())
    except OSError as error:
        raise DoctorError(_text("errors.cannot_write", path=error.filename or path, reason=error.strerror or error)) from error
    return backup


def _diff(path: Path, old: str, new: str) -> str:
    from doctor.config import fixes

    return fixes.diff(str(path), old, new)


def _summarise(path: Path, report: Report, made: FixedConfig, lang: str, *, written: bool, backup: str) -> None:
    """What was fixed and what is left, on stderr."""
    for line in made.left:
        typer.echo(f"lfdoctor: {path}: {line.get(lang)}", err=True)
    if not written:
        typer.echo(f"lfdoctor: {path}: {_text('check.would_fix', count=made.count).get(lang)}", err=True)
        return
    remaining = sum(finding.severity != "note" for finding in report.findings)
    name = "check.fixed_with_backup" if backup else "check.fixed"
    said = _text(name, count=made.count, left=remaining, backup=backup)
    typer.echo(f"lfdoctor: {path}: {said.get(lang)}", err=True)


def _text(name: str, /, **values: object) -> Text:
    from doctor.words import catalogue

    return catalogue.text(name, **values)


def _joined(reports: list[Report], kind: str, *, translations: bool) -> str:
    """The reports of several files as one document: a JSON array, one SARIF run, or line after line."""
    import msgspec

    from doctor.reporters.json import settled

    kept = [report if translations else msgspec.structs.replace(report, translations={}) for report in reports]
    texts = [registry.REPORTERS[kind](settled(report)) for report in kept]
    if kind in ("concise", "github"):
        return "".join(texts)
    if kind == "json":
        return "[\n" + ",\n".join(text.rstrip("\n") for text in texts) + "\n]\n"
    return json.dumps(_one_run([json.loads(text) for text in texts]), ensure_ascii=False, indent=2) + "\n"


def _one_run(logs: list[dict[str, Any]]) -> dict[str, Any]:
    """SARIF logs of one run each as a log of one run; rules are listed once."""
    if not logs:
        return {"version": "2.1.0", "runs": []}
    first = logs[0]["runs"][0]
    rules: dict[str, Any] = {}
    results, notes = [], []
    for run in (log["runs"][0] for log in logs):
        notes += run["invocations"][0]["toolExecutionNotifications"]
        for rule in run["tool"]["driver"]["rules"]:
            rules.setdefault(rule["id"], rule)
        results += run["results"]
    order = list(rules)
    driver = {**first["tool"]["driver"], "rules": list(rules.values())}
    joined = [{**result, "ruleIndex": order.index(result["ruleId"])} for result in results]
    invocation = {**first["invocations"][0], "toolExecutionNotifications": notes}
    return {**logs[0], "runs": [{**first, "tool": {"driver": driver}, "invocations": [invocation], "results": joined}]}
