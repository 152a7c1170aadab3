"""`lfdoctor run` from start to end: folder, child, live warnings, evidence, and a report in any case."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from doctor.config.preflight import model_folder
from doctor.diagnosis.pipeline import analyze
from doctor.errors import DoctorError
from doctor.live.supervisor.effective_time import ALL, Start, effective_time
from doctor.live.supervisor.evidence import KillEvidence
from doctor.live.supervisor.journal_tail import JournalTail, Listeners
from doctor.live.supervisor.launch import Launch
from doctor.live.supervisor.run_folder import RunFolder
from doctor.live.supervisor.supervise import Supervised
from doctor.live.trainer.journal import JournalWriter, encode
from doctor.live.trainer.recorder import log_stderr
from doctor.privacy.secrets import mask
from doctor.report.model import Report

_VARIABLES = re.compile(r"(?:CUDA|NCCL|TORCH|PYTORCH|FORCE_TORCHRUN|NPROC|NNODES|NODE_RANK|OMP|USE_V1|HF_|DISABLE_VERSION_CHECK)\w*")
"""Environment variables that change a training; they are kept with the command."""
INTERACTIVE = frozenset({"webui", "webchat", "chat", "api"})
"""Commands of LLaMA-Factory that wait for people: their silence means nothing (the callback watches LlamaBoard's trainings itself)."""


class Outcome(msgspec.Struct, frozen=True):
    """How a watched run ended: the child's code (negative: a signal), its report (None: it could not be made), the warnings printed.

    `stop_requested`: somebody sent us a signal that ends programs; it was passed on.
    """

    code: int
    report: Report | None
    warned: list[str]
    stop_requested: bool = False


def run(
    command: Sequence[str],
    folder: Path,
    *,
    stop_on_divergence: bool = False,
    lang: str = "en",
    analyze: Callable[..., Report] = analyze,
    env: Mapping[str, str] | None = None,
    config: Path | None = None,
    dump_after: float | None = None,
    kill_after: float | None = None,
    listeners: Listeners = Listeners(),  # noqa: B008  frozen
) -> Outcome:
    """Run `command` watched; `folder` receives console.log, command.sh, the journals and report.json.

    `analyze` makes the report, `env` are additional variables, `config` is the training YAML if it is not the one that the command
    names. `dump_after` and `kill_after` are seconds of silence (see HangDetector). Raises DoctorError (2) if the folder cannot be used
    or the command cannot be started.
    """
    extra = {"LFDOCTOR_MONITOR": "off", **({"LFDOCTOR_STOP": "1"} if stop_on_divergence else {}), **(env or {})}
    dump_after = 0.0 if INTERACTIVE & set(command[:6]) else dump_after
    with RunFolder(folder, command) as held:
        _write_command(command, folder)
        known = _before_the_start(config or config_of(command))
        tail = JournalTail(folder / "lfdoctor.jsonl", listeners, [encode(event) for event in known])
        child = Supervised(command, folder.resolve(), extra, dump_after=dump_after, kill_after=kill_after, report=tail.tell, held=held)
        evidence = KillEvidence()
        began = time.time()
        with tail:
            code = child.run()
        kills = evidence.lines() if code else []  # a run that ended well was not killed: another process was
        _note_end(folder, code, [*kills, *child.summary], known if code else ())
        listeners.tell(f"{folder}: ended with {code}" if code else f"{folder}: ended well")
        report = _report(config or config_of(command), folder, began, partial(analyze, lang=lang))
        if report is not None:
            start = Start.read(folder, began, time.time())
            kept = ALL if code == 0 and report.run.status == "completed" else start.saved
            report = msgspec.structs.replace(report, time=effective_time([start], [], kept))
            save_or_complain(report, folder / "report.json")
    return Outcome(code, report, tail.warned, stop_requested=child.stop_requested)


def _write_command(command: Sequence[str], folder: Path) -> None:
    try:
        (folder / "command.sh").write_text(script(command), encoding="utf-8")
    except OSError as error:  # a full disk: the training may still have room for what it does
        log_stderr(f"{folder}/command.sh: {error.strerror or error}")


def script(command: Sequence[str]) -> str:
    """The command for a shell, with the variables that change a training; secrets masked."""
    variables = [f"{name}={shlex.quote(mask(value))}" for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)]
    return "#!/bin/sh\n" + " ".join([*variables, *(shlex.quote(mask(word)) for word in command)]) + "\n"


def config_of(command: Sequence[str]) -> Path | None:
    """The training YAML that the command names, if it exists."""
    return Launch.of(command).config


def _before_the_start(config: Path | None) -> list[dict[str, Any]]:
    """What only the machine that trains can tell of the configuration: that the model's folder does not exist."""
    from doctor.config import yaml_edit

    try:
        values = yaml_edit.load(config.read_text(encoding="utf-8", errors="replace")) if config is not None else {}
    except (OSError, yaml_edit.NotReadable):
        return []
    return [{"type": "Fact", "name": name, "value": value} for name, value in model_folder(values, Path()).items()]


def _note_end(folder: Path, code: int, reasons: Sequence[str], known: Sequence[dict[str, Any]] = ()) -> None:
    """How the child ended, as events of a journal of our own: what was known before, then the system's messages, for they say why."""
    now = time.time()
    events: list[dict[str, Any]] = [*known, *({"type": "LogLine", "time": now, "text": text} for text in reasons)]
    ended = {"code": code} if code >= 0 else {"signal": -code}
    journal = JournalWriter(folder / "lfdoctor-run.jsonl")
    try:
        journal.write([encode(event) for event in (*events, {"type": "ProcessEnd", "time": now, **ended})])
        journal.close()
    except OSError as error:
        log_stderr(f"{folder}: {error.strerror or error}")


def _report(config: Path | None, folder: Path, began: float, analyze: Callable[..., Report]) -> Report | None:
    """The report of what was captured; without a journal (nothing was hooked) also of what the training wrote itself.

    A report that cannot be saved is returned all the same: it is printed, and decides about a restart.
    """
    paths = captured(folder)
    if not _has_steps(folder / "lfdoctor.jsonl") and config is not None:
        paths += _written_by_training(config, began)
    try:
        report = analyze([path for path in paths if path.stat().st_size], config=config)
    except (DoctorError, OSError) as error:
        log_stderr(f"no report: {error}")
        return None
    return msgspec.structs.replace(report, run=msgspec.structs.replace(report.run, path=str(folder)))


def _has_steps(path: Path) -> bool:
    try:
        return b'"type":"Step"' in path.read_bytes()
    except OSError:
        return False


def captured(folder: Path) -> list[Path]:
    """What a watched run left in its folder for the readers."""
    return sorted(path for path in folder.iterdir() if path.name in ("console.log", "command.sh") or path.name.startswith("lfdoctor"))


def save_or_complain(report: Report, path: Path) -> None:
    """Write the report as JSON; if that fails, say why on standard error and leave no half-written file."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(report.to_dict()), indent=2) + b"\n")
        temporary.replace(path)
    except OSError as error:
        log_stderr(f"the report cannot be saved: {path}: {error.strerror or error}")
        temporary.unlink(missing_ok=True)


def _written_by_training(config: Path, began: float) -> list[Path]:
    """trainer_log.jsonl of the config's output folder, if this run wrote it."""
    from doctor.config import yaml_edit

    try:
        output = yaml_edit.load(config.read_text(encoding="utf-8", errors="replace")).get("output_dir")
        log = Path(str(output)) / "trainer_log.jsonl"
        return [log] if output and log.stat().st_mtime >= began else []
    except (OSError, yaml_edit.NotReadable):
        return []
