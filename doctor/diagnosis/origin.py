"""How a run was started and whether it left a checkpoint: looked up on disk once its files are read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePath

from doctor.core.events import Fact, Where
from doctor.core.run import Run
from doctor.planner.launching import Launch

_SCRIPT_BYTES = 256 << 10
"""Bytes of a launch script that are read."""
_CONTINUED = 64
"""Lines that one command may be spread over with backslashes."""
_DEPTH = 3
"""Folders are searched for checkpoints as deep as the readers look."""
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_ASSIGNED = re.compile(r"\s*(?P<export>export\s+)?(?P<name>[A-Za-z_]\w*)=(?P<value>'[^']*'|\"[^\"]*\"|[^\s;&|]*)\s*(?:;\s*)?(?:#.*)?")
_REFERENCE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID")
"""Variables of a training process that torchrun sets for each rank; the user need not repeat them."""


def launch_of(run: Run, scripts: Iterable[str]) -> Launch | None:
    """The command that started the run: from a script beside the log, else the journal's, else one pasted above the log."""
    launches = (launch for script in scripts if (launch := _of_script(Path(script))) is not None)
    return next(launches, None) or _of_journal(run) or _of_pasted_line(run)


def checkpoint_seen(paths: Sequence[str | Path], run: Run) -> bool:
    """Whether there is a `checkpoint-N` folder under the paths or in the run's output_dir."""
    return any(True for folder in _roots(paths, run) for _ in _checkpoints(folder, _DEPTH))


def _roots(paths: Sequence[str | Path], run: Run) -> list[Path]:
    return [*map(Path, paths), *([Path(str(run.config["output_dir"]))] if run.config.get("output_dir") else [])]


def best_saved(paths: Sequence[str | Path], run: Run) -> Iterator[Fact]:
    """Facts on the checkpoint folder under the paths, or in the run's output_dir, whose evaluation had the lowest loss."""
    series = run.series.get("eval_loss")
    if series is None:
        return
    losses = dict(series)
    saved = {
        step: folder for root in _roots(paths, run) for folder in _checkpoints(root, _DEPTH) if (step := int(folder.name[11:])) in losses
    }
    best = min(saved, key=lambda step: losses[step], default=None)
    if best is not None and math.isfinite(losses[best]):
        where = Where(str(saved[best]), step=best)
        yield Fact(where=where, name="best_saved.folder", value=saved[best].name)
        yield Fact(where=where, name="best_saved.value", value=losses[best])


def last_saved(paths: Sequence[str | Path], run: Run) -> Iterator[Fact]:
    """The fact on the checkpoint folder under the paths of the highest step that the run reached; one that v1 only began is none."""
    folders = [folder for root in map(Path, paths) for folder in _checkpoints(root, _DEPTH)]
    saved = {int(folder.name[11:]): folder for folder in folders if not _begun_by_v1(folder)}
    reached = [step for step in saved if run.last_step is not None and step <= run.last_step]
    if reached:
        folder = saved[max(reached)]
        yield Fact(where=Where(str(folder), step=max(reached)), name="checkpoint.last", value=folder.name)


def _begun_by_v1(folder: Path) -> bool:
    """Whether the v1 trainer did not finish a checkpoint: it writes metadata.json first and the marker last, and resumes from no other."""
    try:
        return (folder / "metadata.json").is_file() and not (folder / "CHECKPOINT_COMPLETE").exists()
    except OSError:  # a folder that may not be entered tells nothing
        return False


def _checkpoints(folder: Path, depth: int) -> Iterator[Path]:
    if _CHECKPOINT.fullmatch(folder.name):
        yield folder
        return
    try:
        inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()] if folder.is_dir() else []
    except OSError:
        return
    for entry in inside:
        if depth > 1 or _CHECKPOINT.fullmatch(entry.name):
            yield from _checkpoints(entry, depth - 1)


def _of_script(path: Path) -> Launch | None:
    """The first command of a script that starts a training, with the variables that the script sets before it."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_SCRIPT_BYTES)
    except OSError:
        return None
    known: dict[str, str] = {}
    exported: dict[str, str] = {}
    for line in _logical_lines(text.splitlines()):
        assigned = _ASSIGNED.fullmatch(line)
        if assigned:
            known[assigned["name"]] = _expanded(assigned["value"].strip("'\""), known)
            exported |= {assigned["name"]: known[assigned["name"]]} if assigned["export"] else {}
        elif (launch := Launch.parse(line)) is not None:
            env = {**exported, **{name: _expanded(value, known) for name, value in launch.env.items()}}
            return Launch(env, [_expanded(word, known) for word in launch.words])
    return None


def _of_journal(run: Run) -> Launch | None:
    """The process's own words and variables; under torchrun they name LLaMA-Factory's launcher.py, which llamafactory-cli starts."""
    command, place = run.facts.get("command"), run.fact_where.get("command")
    launch = Launch.parse(f"python {command}") if isinstance(command, str) else None
    if launch is None or place is None:
        return None
    name = PurePath(launch.words[1]).name
    if name not in ("launcher.py", "llamafactory-cli", "lmf"):
        return None
    env = {
        key.removeprefix("env."): str(run.facts[key])
        for key, where in run.fact_where.items()
        if key.startswith("env.") and where.file == place.file and run.facts[key] and key.removeprefix("env.") not in _SET_BY_TORCHRUN
    }
    words = launch.words[2:]
    return Launch(env, ["llamafactory-cli", *([] if name != "launcher.py" and words[:1] == ["train"] else ["train"]), *words])


def _of_pasted_line(run: Run) -> Launch | None:
    place = run.fact_where.get("config.named") or run.fact_where.get("launcher")
    return Launch.parse(_line(place)) if place is not None and place.line is not None else None


def _line(place: Where) -> str:
    """A line of a log with its continuations; empty if it cannot be read again."""
    try:
        with Path(place.file).open(encoding="utf-8", errors="replace") as file:
            lines = list(islice(file, (place.line or 1) - 1, (place.line or 1) - 1 + _CONTINUED))
    except OSError:
        return ""
    return next(_logical_lines(lines), "")


def _logical_lines(lines: Sequence[str]) -> Iterator[str]:
    """Lines joined with those that their backslash continues them on."""
    held: list[str] = []
    for line in lines:
        text = line.strip()
        held.append(text.removesuffix("\\"))
        if not text.endswith("\\"):
            yield " ".join(held)
            held = []
    if held:
        yield " ".join(held)


def _expanded(text: str, known: dict[str, str]) -> str:
    """Variables of the same script; an unknown one stays a reference."""
    return _REFERENCE.sub(lambda found: known.get(found[1], found[0]), text)
