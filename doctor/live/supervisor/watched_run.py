"""`lfdoctor run` from start to end: folder, child, live warnings, evidence, and the report whatever happened."""

from __future__ import annotations

import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from doctor.diagnosis.pipeline import analyze
from doctor.errors import DoctorError
from doctor.live.supervisor.evidence import KillEvidence
from doctor.live.supervisor.hang_detector import SILENCE_BEFORE_DUMP_SECONDS
from doctor.live.supervisor.launch import Launch
from doctor.live.supervisor.supervise import Supervised
from doctor.live.trainer.journal import Journal, encode
from doctor.live.trainer.monitor import Monitor
from doctor.privacy.secrets import mask
from doctor.report.model import Report

_TELLING = re.compile(r"(?:CUDA|NCCL|TORCH|PYTORCH|FORCE_TORCHRUN|NPROC|NNODES|NODE_RANK|OMP|USE_V1|HF_|DISABLE_VERSION_CHECK)\w*")


IDLES = frozenset({"webui", "webchat", "chat", "api"})
"""What of LLaMA-Factory waits for people: its silence means nothing (the callback watches the trainings that LlamaBoard starts)."""


class Listeners(msgspec.Struct, frozen=True):
    """Who else hears of a watched run: `lines` get the journal's lines as they come, `texts` every warning and how it ended."""

    lines: tuple[Callable[[bytes], None], ...] = ()
    texts: tuple[Callable[[str], None], ...] = ()

    def tell(self, text: str) -> None:
        """To everyone who wants to know."""
        for one in self.texts:
            one(text)


class Outcome(msgspec.Struct, frozen=True):
    """How a watched run ended: the child's code (negative: a signal), its report (None: none could be made), what was warned of.

    `asked_to_stop`: somebody sent us a signal that ends programs, and it was passed on.
    """

    code: int
    report: Report | None
    warned: list[str]
    asked_to_stop: bool = False


def run(
    command: Sequence[str],
    folder: Path,
    *,
    stop_on_divergence: bool = False,
    lang: str = "en",
    analyze: Callable[..., Report] = analyze,
    env: Mapping[str, str] | None = None,
    config: Path | None = None,
    silence: float | None = None,
    ask: float = SILENCE_BEFORE_DUMP_SECONDS,
    ears: Listeners = Listeners(),  # noqa: B008  frozen
) -> Outcome:
    """Runs `command` watched; `folder` receives console.log, command.sh, the journals and report.json. Raises DoctorError (2).

    `analyze` makes the report. `env` are variables on top of ours, `config` the training
    YAML if the command does not name the one to speak of, `silence` the seconds without a word after which the run is ended as hung, `ask`
    those after which its ranks are asked where they stand (0: never).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "command.sh").write_text(script(command), encoding="utf-8")
    except OSError as error:
        raise DoctorError(f"cannot write {folder}: {error.strerror or error}") from error
    extra = {"LFDOCTOR_MONITOR": "off", **({"LFDOCTOR_STOP": "1"} if stop_on_divergence else {}), **(env or {})}
    ask = 0.0 if IDLES & set(command[:6]) else ask
    tail = Tail(folder / "lfdoctor.jsonl", ears)
    child = Supervised(command, folder.resolve(), extra, silence, ask=ask, tell=tail.tell)
    evidence = KillEvidence()
    began = time.time()
    with tail:
        code = child.run()
    kills = evidence.lines() if code else []  # a run that ended well was not killed: somebody else was
    _note(folder, code, [*kills, *child.said])
    ears.tell(f"{folder}: ended with {code}" if code else f"{folder}: ended well")
    report = _report(config or config_of(command), folder, began, partial(analyze, lang=lang))
    return Outcome(code, report, tail.warned, asked_to_stop=child.asked_to_stop)


def script(command: Sequence[str]) -> str:
    """The command as a shell would take it, with the variables that change a training; secrets masked."""
    told = [f"{name}={shlex.quote(mask(value))}" for name, value in sorted(os.environ.items()) if _TELLING.fullmatch(name)]
    return "#!/bin/sh\n" + " ".join([*told, *(shlex.quote(mask(word)) for word in command)]) + "\n"


def config_of(command: Sequence[str]) -> Path | None:
    """The training YAML that the command names, if it is there."""
    return Launch.of(command).config


class Tail:
    """Follows the journal while it grows and warns on standard error; an error of its own ends the warnings, never the run."""

    def __init__(self, path: Path, ears: Listeners) -> None:
        self._ears = ears
        self.warned: list[str] = []
        self._monitor = Monitor(self.tell, str(path))
        self._path, self._offset, self._rest = path, _size(path), b""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="lfdoctor-tail", daemon=True)

    def __enter__(self) -> Tail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(5)

    def tell(self, text: str) -> None:
        """On standard error, and to everyone else who wants to know."""
        self.warned.append(text)
        self._ears.tell(text)
        print(f"lfdoctor: {text}", file=sys.stderr, flush=True)

    def _follow(self) -> None:
        try:
            while not self._done.wait(0.5):
                self._read()
            self._read()
            self._monitor.close()
        except Exception as error:
            self.tell(f"no more warnings: {type(error).__name__}: {error}")

    def _read(self) -> None:
        size = _size(self._path)
        if size < self._offset:  # rotated
            self._offset, self._rest = 0, b""
        if size == self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(size - self._offset)
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._monitor.line(line)
            for ear in self._ears.lines:
                ear(line)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _note(folder: Path, code: int, kills: Sequence[str]) -> None:
    """How the child ended, as events of a journal of our own: the system's words first, for they say why."""
    now = time.time()
    events: list[dict[str, Any]] = [{"type": "LogLine", "time": now, "text": text} for text in kills]
    ended = {"code": code} if code >= 0 else {"signal": -code}
    journal = Journal(folder / "lfdoctor-run.jsonl")
    try:
        journal.write([encode(event) for event in (*events, {"type": "ProcessEnd", "time": now, **ended})])
        journal.close()
    except OSError as error:
        print(f"lfdoctor: {folder}: {error.strerror or error}", file=sys.stderr)


def _report(config: Path | None, folder: Path, began: float, analyze: Callable[..., Report]) -> Report | None:
    """The post-mortem of what was captured; without a journal (nothing was hooked) also of what the training left by itself."""
    paths = captured(folder)
    if not _has_steps(folder / "lfdoctor.jsonl") and config is not None:
        paths += _left_behind(config, began)
    try:
        report = analyze([path for path in paths if _size(path)], config=config)
        report = msgspec.structs.replace(report, run=msgspec.structs.replace(report.run, path=str(folder)))
        save(report, folder / "report.json")
    except (DoctorError, OSError) as error:
        print(f"lfdoctor: no report: {error}", file=sys.stderr)
        return None
    return report


def _has_steps(path: Path) -> bool:
    try:
        return b'"type":"Step"' in path.read_bytes()
    except OSError:
        return False


def captured(folder: Path) -> list[Path]:
    """What a watched run left in its folder for the readers."""
    return sorted(path for path in folder.iterdir() if path.name in ("console.log", "command.sh") or path.name.startswith("lfdoctor"))


def save(report: Report, path: Path) -> None:
    """The report as JSON. Raises OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report.to_dict()), indent=2) + b"\n")


def _left_behind(config: Path, began: float) -> list[Path]:
    """trainer_log.jsonl of the config's output folder, if this run wrote it."""
    from doctor.config import yaml_edit

    try:
        output = yaml_edit.load(config.read_text(encoding="utf-8", errors="replace")).get("output_dir")
        log = Path(str(output)) / "trainer_log.jsonl"
        return [log] if output and log.stat().st_mtime >= began else []
    except (OSError, yaml_edit.NotReadable):
        return []
