"""Repeats the steps of a training that may have gone wrong, twice, under hooks: the same outcome is data or code, another the machine."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.config import yaml_edit
from doctor.config.options import effective
from doctor.config.patch import Change
from doctor.errors import DoctorError
from doctor.live.supervisor import checkpoints
from doctor.live.supervisor.checkpoints import Checkpoint
from doctor.live.supervisor.launch import Launch, patched
from doctor.live.supervisor.supervise import environment, forwarding
from doctor.live.trainer.step_probe import VARIABLE
from doctor.support.decoding import json_decoder
from doctor.support.process_tree import kill_tree
from doctor.words import catalogue

TIMES = 2
LONGEST_SECONDS = 3600.0
"""Of one repetition, loading included; what takes longer is given up."""
GRACE_SECONDS = 20.0
"""For the other ranks, after the first has told what it found."""
_QUIET: dict[str, Any] = {"report_to": "none", "plot_loss": False, "push_to_hub": False, "overwrite_output_dir": True}
"""What a repetition does otherwise than the training; none of it draws a random number."""
_GIVEN = re.compile(r".*checkpoint-(\d{1,12})[/\\]?")
_decode = json_decoder(dict[str, Any]).decode

Verdict = Literal["same", "differs", "nothing", "failed"]


class Repetition(msgspec.Struct, frozen=True):
    """`outcomes`: the finding of each repetition (see StepProbe; {} if it ended without one). `checkpoint`: what both began from.

    `same`: all found the same. `differs`: they did not, or one found nothing. `nothing`: all values were finite. `failed`: one did not
    come so far.
    """

    steps: tuple[int, int]
    checkpoint: str | None
    outcomes: list[dict[str, Any]]

    @property
    def verdict(self) -> Verdict:
        """What the outcomes say together."""
        if not all(self.outcomes):
            return "failed"
        keys = {json.dumps([one.get(name) for name in ("kind", "name", "step", "rows")]) for one in self.outcomes}
        if len(keys) > 1:
            return "differs"
        return "nothing" if self.outcomes[0]["kind"] == "nothing" else "same"

    def lines(self, lang: str) -> list[str]:
        """The answer for people."""
        first, last = self.steps
        start = (
            catalogue.say("repeat.from_checkpoint", lang, path=self.checkpoint)
            if self.checkpoint
            else catalogue.say("repeat.from_zero", lang)
        )
        out = [catalogue.say("repeat.head", lang, first=first, last=last, times=len(self.outcomes), start=start)]
        told = {json.dumps(one): one for one in self.outcomes if one and one["kind"] != "nothing"}
        out += [_sentence(one, lang) for one in told.values()][: 1 if self.verdict == "same" else TIMES]
        return [*out, catalogue.say(f"repeat.{self.verdict}", lang)]


def repeat(launch: Launch, folder: Path, step: int, env: Mapping[str, str] = {}) -> Repetition:
    """Train up to the step in whose log the trouble was seen, TIMES times, with hooks from the first step on; write folder/repeat.json.

    Begins from the newest whole checkpoint before the trouble, else from zero: what broke the weights may lie before the log that shows
    it. The training's own folder is not touched. Raises DoctorError if the command names no training YAML, or nothing can be
    written; KeyboardInterrupt once a signal that was sent to us has been passed on.
    """
    if launch.text is None:
        raise DoctorError(catalogue.text("healing.no_config").get(catalogue.user_language()))
    point = begins_from(launch, step)
    steps = (point.step + 1 if point else 1, step)
    outcomes = []
    try:
        for number in range(1, TIMES + 1):
            outcomes.append(_once(launch, folder / f"repeat-{number}", steps, point, env))
        result = Repetition(steps, str(point.path) if point else None, outcomes)
        text = json.dumps({"verdict": result.verdict, **msgspec.to_builtins(result)}, indent=2, ensure_ascii=False)
        (folder / "repeat.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DoctorError(f"cannot write {folder}: {error.strerror or error}") from error
    return result


def begins_from(launch: Launch, step: int) -> Checkpoint | None:
    """The newest whole checkpoint in the training's folder from before the steps that the log of `step` is a mean of."""
    values = effective(yaml_edit.load(launch.text or ""), {})
    every = values.get("logging_steps")
    window = int(every) if isinstance(every, int | float) and every >= 1 else 1
    points = checkpoints.whole(Path(str(values["output_dir"]))) if values.get("output_dir") else []
    if found := _GIVEN.fullmatch(str(values.get("resume_from_checkpoint") or "")):
        points.append(Checkpoint(int(found[1]), Path(found[0])))
    return max((point for point in points if point.step <= step - window), default=None)


def _once(launch: Launch, folder: Path, steps: tuple[int, int], point: Checkpoint | None, env: Mapping[str, str]) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = folder.with_suffix(".yaml")
    config.write_text(_config(launch.text or "", folder / "output", point), encoding="utf-8")
    variables = environment(folder.resolve(), {**env, VARIABLE: f"{steps[0]}-{steps[1]}", "LFDOCTOR_MONITOR": "off"})
    with (folder / "console.log").open("wb") as console:
        child = subprocess.Popen(  # noqa: S603  the user's own command
            launch.with_config(config.resolve()), env=variables, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
        )
        received: list[int] = []
        try:
            with forwarding(child, [], received.append):
                _wait(child, folder)
        finally:
            if child.poll() is None:
                kill_tree(child.pid)
                child.wait()
    shutil.rmtree(folder / "output", ignore_errors=True)
    if received:
        raise KeyboardInterrupt
    return _outcome(folder)


def _config(text: str, output: Path, point: Checkpoint | None) -> str:
    """The training's YAML: from the checkpoint, into a folder of its own, saving and reporting nothing."""
    values = yaml_edit.load(text)
    wanted = {**_QUIET, "output_dir": str(output.resolve()), "resume_from_checkpoint": str(point.path.resolve()) if point else None}
    if not values.get("load_best_model_at_end"):  # which wants to save when it evaluates
        wanted["save_strategy"] = "no"
    changes = [
        Change("config", "unset" if value is None else "set", key, values.get(key), value)
        for key, value in wanted.items()
        if values.get(key) != value and (value is not None or key in values)
    ]
    return patched(text, changes, {change.key: "repeat-the-step" for change in changes})


def _wait(child: subprocess.Popen[bytes], folder: Path) -> None:
    """Until the training ends, GRACE_SECONDS after a rank has told its finding at the latest."""
    end = time.monotonic() + LONGEST_SECONDS
    told = False
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.5)
        if not told and _outcome(folder):
            told, end = True, time.monotonic() + GRACE_SECONDS


def _outcome(folder: Path) -> dict[str, Any]:
    """The finding of the rank that knows most; {} if there is none."""
    found = []
    for path in sorted(folder.glob("lfdoctor*.jsonl")):
        for line in path.read_bytes().splitlines():
            if line.startswith(b'{"type":"Repeat"'):
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    found.append({key: value for key, value in _decode(line).items() if key != "type"})
    order = ("sample", "weight", "module", "exception", "loss", "gradient", "nothing")
    return min(found, key=lambda one: (one["step"], order.index(one["kind"])), default={})


def _sentence(found: Mapping[str, Any], lang: str) -> str:
    kind = "sample_in" if found["kind"] == "sample" and found.get("rows") is None else found["kind"]
    facts = {**found, "rows": ", ".join(str(row + 1) for row in found.get("rows") or ())}
    if kind == "module":
        kind = f"module_{found['direction']}"
    return catalogue.say(f"repeat.{kind}", lang, **facts)
