"""How a run was started and whether it left a checkpoint: looked up on disk once its files are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePath

from doctor.core.events import Where
from doctor.core.run import Run
from doctor.planner.launching import Launch

_LINE_BYTES = 1 << 14
"""A longer command line is cut."""
_CONTINUED = 64
"""Lines that one command may be spread over with backslashes."""
_DEPTH = 3
"""Folders are searched for checkpoints as deep as the readers look."""
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def launch_of(run: Run) -> Launch | None:
    """The command that started the run: a script or a pasted line beside the log, else the process's own words from the journal."""
    place = run.fact_where.get("config.named") or run.fact_where.get("launcher")
    if place is not None and place.line is not None:
        launch = Launch.parse(_logical_line(place), dict(_exported(run, place)))
        if launch is not None:
            return launch
    command = run.facts.get("command")
    return _of_process(command) if isinstance(command, str) else None


def checkpoint_seen(paths: Sequence[str | Path], run: Run) -> bool:
    """Whether there is a `checkpoint-N` folder under the paths or in the run's output_dir."""
    folders = [*map(Path, paths), *([Path(str(run.config["output_dir"]))] if run.config.get("output_dir") else [])]
    return any(_holds_checkpoint(folder, _DEPTH) for folder in folders)


def _holds_checkpoint(folder: Path, depth: int) -> bool:
    if _CHECKPOINT.fullmatch(folder.name):
        return True
    try:
        inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()] if folder.is_dir() else []
    except OSError:
        return False
    return any(_CHECKPOINT.fullmatch(entry.name) for entry in inside) or (
        depth > 1 and any(_holds_checkpoint(entry, depth - 1) for entry in inside)
    )


def _logical_line(place: Where) -> str:
    """The line of a script with its continuations; empty if it cannot be read again."""
    try:
        with Path(place.file).open(encoding="utf-8", errors="replace") as file:
            lines = islice(file, (place.line or 1) - 1, (place.line or 1) - 1 + _CONTINUED)
            return " ".join(_continued(line[:_LINE_BYTES] for line in lines))
    except OSError:
        return ""


def _continued(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        text = line.strip()
        yield text.removesuffix("\\")
        if not text.endswith("\\"):
            return


def _exported(run: Run, place: Where) -> Iterator[tuple[str, str]]:
    """Variables that the same script sets on lines before its command."""
    for name, where in run.fact_where.items():
        if name.startswith("env.") and where.file == place.file and (where.line or 0) < (place.line or 0):
            yield name.removeprefix("env."), str(run.facts[name])


def _of_process(command: str) -> Launch | None:
    """The process's own words; under torchrun they name LLaMA-Factory's launcher.py, which llamafactory-cli starts."""
    launch = Launch.parse(f"python {command}")
    if launch is None:
        return None
    words = launch.words[1:]
    name = PurePath(words[0]).name if words else ""
    if name == "launcher.py":
        return Launch({"FORCE_TORCHRUN": "1"}, ["llamafactory-cli", "train", *words[1:]])
    return Launch(launch.env, [name, *words[1:]] if name in ("llamafactory-cli", "lmf") else launch.words)
