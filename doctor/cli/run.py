"""lfdoctor run: run a training under observation, without changes to its code or config."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doctor.cli.common import Lang, Rules, one_language
from doctor.errors import DoctorError
from doctor.reporters import registry

if TYPE_CHECKING:
    from doctor.live.supervisor.journal_tail import Listeners
    from doctor.live.supervisor.launch import Launch
    from doctor.report.model import Report


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The training command, as you would start it yourself.")],
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for console, journal and report; default: a new folder.", metavar="DIR")
    ] = None,
    stop_on_divergence: Annotated[
        bool, typer.Option("--stop-on-divergence", help="Stop the training, like early stopping, once it has certainly diverged.")
    ] = False,
    heal: Annotated[
        int, typer.Option("--heal", min=0, help="After a failure, patch the config and restart, at most N times.", metavar="N")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Start nothing; show what --heal would do about an existing failure.")] = False,
    notify: Annotated[
        list[str] | None,
        typer.Option("--notify", envvar="LFDOCTOR_NOTIFY", help="Also send warnings and the result to this apprise URL.", metavar="URL"),
    ] = None,
    metrics: Annotated[
        int | None, typer.Option("--metrics", min=0, max=65535, help="Serve Prometheus metrics on this local port.", metavar="PORT")
    ] = None,
    silence: Annotated[
        float | None,
        typer.Option(
            "--silence",
            min=0,
            help="After this long without output or a step, dump the stacks of all ranks; with --heal, stop the run after six times as "
            "long (at least 30 minutes). 0: never. Default: learnt from the run, five times its slowest step so far, at least 30 s.",
            metavar="SECONDS",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[
        int,
        typer.Option(
            "--repeat",
            min=0,
            help="Train nothing new: repeat a training that became NaN (or ran out of memory) from its last checkpoint up to this step, "
            "twice, with hooks on every module, and name the sample, weight or module.",
            metavar="STEP",
            show_default=False,
        ),
    ] = 0,
    memory_snapshot: Annotated[
        bool,
        typer.Option("--memory-snapshot", help="Record what holds GPU memory, for the report of an out-of-memory error (slightly slower)."),
    ] = False,
    rules: Rules = None,  # noqa: ARG001 (its callback has done it)
    lang: Lang = "en",
) -> int:
    """Run a training, warn early, keep the evidence, and report at the end what happened. Exits with the training's exit code."""
    one_language(lang)
    if not sys.platform.startswith(("linux", "darwin")):
        raise DoctorError("lfdoctor run needs Linux or macOS; on this system use the callback (from doctor import DoctorCallback)")
    os.environ["LFDOCTOR_LANG"] = lang  # for the alerts: the watching thread and the training's own process read it
    from doctor.diagnosis.pipeline import analyze
    from doctor.live.supervisor.supervise import exit_code
    from doctor.live.supervisor.watched_run import run as watch

    target = folder or Path(time.strftime("lfdoctor-%Y%m%d-%H%M%S"))
    if folder is None and not dry_run:
        target = _new_folder(target)
    if dry_run:
        from doctor.live.supervisor.heal import Healer

        healer = Healer(command, target, heal or 1, lang=lang, analyze=analyze)
        print("\n".join(healer.dry(_evidence(folder, healer.launch))))
        return 0
    if repeat:
        return _repeat(command, target, repeat, lang)
    env = {"LFDOCTOR_MEMORY_SNAPSHOT": "1"} if memory_snapshot else {}
    with _listeners(notify or [], metrics, target) as listeners:
        if heal:
            from doctor.live.supervisor.heal import Healer

            healer = Healer(command, target, heal, lang=lang, analyze=analyze, listeners=listeners, dump_after=silence, env=env)
            outcome = healer.run()
        else:
            outcome = watch(
                command,
                target,
                stop_on_divergence=stop_on_divergence,
                lang=lang,
                analyze=analyze,
                listeners=listeners,
                dump_after=silence,
                env=env,
            )
    _print_report(outcome.code, _with_patch(outcome.report, target), target)
    return exit_code(outcome.code)


def _repeat(command: list[str], folder: Path, step: int, lang: str) -> int:
    """Print what the repetition found; 0 if it was the same each time."""
    from doctor.live.supervisor.launch import Launch
    from doctor.live.supervisor.repeat import repeat
    from doctor.live.supervisor.run_folder import RunFolder

    with RunFolder(folder, command, reserve=False):
        found = repeat(Launch.of(command), folder, step)
    print("\n".join(found.lines(lang)))
    return 0 if found.verdict in ("same", "nothing") else 1


def _new_folder(path: Path) -> Path:
    """Create `path`, or `path_2`, `path_3`, ... if it exists: the jobs of an array may start in the same second."""
    for number in itertools.count(2):
        try:
            path.mkdir()
        except FileExistsError:
            path = path.with_name(f"{path.name.partition('_')[0]}_{number}")
        except OSError:  # reported when the folder is used
            break
        else:
            break
    return path


@contextlib.contextmanager
def _listeners(urls: list[str], port: int | None, folder: Path) -> Iterator[Listeners]:
    """Notifications and metrics while the run lasts. Raises DoctorError if an extra is missing or an address cannot be used."""
    from doctor.live.supervisor.journal_tail import Listeners

    with contextlib.ExitStack() as stack:
        lines: list[Callable[[bytes], None]] = []
        texts: list[Callable[[str], None]] = []
        if urls:
            from doctor.live.watch.alerts import Notifier

            notifier = Notifier(urls, f"lfdoctor: {folder}", complain=lambda text: print(f"lfdoctor: {text}", file=sys.stderr))
            stack.callback(notifier.close)
            texts.append(notifier.tell)
        if port is not None:
            from doctor.live.watch.prometheus import Endpoint

            endpoint = Endpoint(port)
            stack.callback(endpoint.close)
            print(f"lfdoctor: metrics on http://127.0.0.1:{endpoint.port}/metrics", file=sys.stderr)
            lines.append(endpoint.line)
            texts.append(endpoint.finding)
        yield Listeners(tuple(lines), tuple(texts))


def _evidence(folder: Path | None, launch: Launch) -> list[Path]:
    """Files of an earlier run: its run folder, else what the training wrote, else the config alone."""
    from doctor.config import yaml_edit
    from doctor.live.supervisor.watched_run import captured

    if folder is not None and folder.is_dir():
        attempts = sorted(folder.glob("attempt-*/"), key=lambda path: int(path.name.rpartition("-")[2]))
        found = captured(attempts[-1] if attempts else folder)
        if found:
            return found
    output = Path(str(yaml_edit.load(launch.text or "").get("output_dir") or "."))
    left = output / "trainer_log.jsonl"
    return [left] if left.is_file() else [launch.config] if launch.config else []


def _with_patch(report: Report | None, folder: Path) -> Report | None:
    """The report, and its patch written into the run's folder: the report's command then names that file."""
    if report is None or report.patch is None or report.patch.yaml is None:
        return report
    from doctor.cli.analyze import write_patch
    from doctor.live.supervisor.watched_run import save_or_complain

    names = itertools.chain(["patched.yaml"], (f"patched-{number}.yaml" for number in itertools.count(2)))
    try:
        report = write_patch(report, next(path for name in names if not (path := folder / name).exists()))
    except DoctorError as error:  # the disk that ended the run may be full still
        print(f"lfdoctor: {error}", file=sys.stderr)
        return report
    save_or_complain(report, folder / "report.json")
    return report


def _print_report(code: int, report: Report | None, folder: Path) -> None:
    """The report, on standard error: standard output belongs to the training."""
    if report is None:
        return
    if code == 0 and not report.findings:
        from doctor.reporters.base import time_line
        from doctor.words.catalogue import load

        print(f"lfdoctor: the run completed, no problem found ({folder}/report.json)", file=sys.stderr)
        if line := time_line(report, load(report.lang)):
            print(f"lfdoctor: {line}", file=sys.stderr)
        return
    from doctor.reporters.base import Screen

    width, color = 100, sys.stderr.isatty()
    encoding = (sys.stderr.encoding or "ascii").lower()
    text = registry.REPORTERS["terminal"](report, Screen(width=width, color=color, unicode=encoding.startswith("utf")))
    sys.stderr.buffer.write(b"\n")  # the training may have ended in the middle of a line
    sys.stderr.buffer.write(text.encode(sys.stderr.encoding or "ascii", "replace"))
    sys.stderr.flush()
