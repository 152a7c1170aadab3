"""trainer_state.json of transformers, in the run's root or a checkpoint: the log history with grad_norm and full precision."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import ConfigSeen, Event, Fact, Step
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.file import File, decode
from doctor.readers.origins import stage_of
from doctor.readers.values import SUMMARY_FACTS, number, numbers

_HEAD = 16 << 10
"""Bytes that hold the first records of the log history."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_NOT_METRICS = frozenset({"step", "total_flos"})


class TrainerState(ReaderBase):
    """Of a damaged file, the records before the damage are read."""

    kind = "trainer_state"
    lane: Lane = "metrics"
    output = True

    def claims(self, path: Path, head: bytes) -> bool:
        return (path.name.startswith("trainer_state") and ".json" in path.name) or (path.suffix == ".json" and b'"log_history"' in head)

    def configs(self, file: File) -> Iterator[Event]:
        stage = stage_of(file.head(_HEAD))
        if stage is not None and b"rewards/chosen" in file.peek(_HEAD):
            yield ConfigSeen(where=file.where(), values={"stage": stage}, origin="inferred")

    def read(self, file: File, context: Context) -> Iterator[Event]:
        data = file.whole(1 << 30)
        state = _parse(data, file) if data else None
        if not isinstance(state, dict):
            if data is not None:
                file.source.problem("is no JSON object")
            return
        planned = state.get("max_steps")
        if type(planned) is int and planned > 0:
            yield Fact(where=file.where(), name="steps.planned", value=planned)
        if (epochs := number(state.get("num_train_epochs"))) is not None:
            yield Fact(where=file.where(), name="epochs.planned", value=epochs)
        history = state.get("log_history")
        for entry in history if isinstance(history, list) else ():
            if not isinstance(entry, dict) or type(entry.get("step")) is not int:
                continue
            if "train_runtime" in entry and "loss" not in entry:
                yield from _summary(entry, file)
                continue
            file.source.records += 1
            where = file.where(step=entry["step"])
            yield Step(where=where, step=entry["step"], metrics=numbers(entry, _NOT_METRICS))
        yield from _reached(state, file)
        yield from _best(state, file)
        if type(planned) is int and planned > 0 and state.get("global_step") == planned and not _in_checkpoint(file.path):
            yield Fact(where=file.where(), name="run.completed", value=True)


def _reached(state: dict[str, Any], file: File) -> Iterator[Step]:
    """The last step where nothing was logged at it: with the epoch as its only metric."""
    step, epoch = state.get("global_step"), number(state.get("epoch"))
    history = state.get("log_history")
    logged = [entry.get("step") for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    if type(step) is int and epoch is not None and step > max((n for n in logged if type(n) is int), default=0):
        yield Step(where=file.where(step=step), step=step, metrics={"epoch": epoch})


def _best(state: dict[str, Any], file: File) -> Iterator[Fact]:
    """What the trainer holds for the best model (`load_best_model_at_end`), and whether it is that of the last evaluation."""
    folder, metric = state.get("best_model_checkpoint"), number(state.get("best_metric"))
    if not isinstance(folder, str) or not folder:
        return
    name = re.split(r"[/\\]", folder)[-1]
    step = state.get("best_global_step")
    if type(step) is not int:
        found = _CHECKPOINT.fullmatch(name)
        step = int(found[1]) if found else None
    yield Fact(where=file.where(), name="best.checkpoint", value=name)
    if metric is not None:
        yield Fact(where=file.where(), name="best.metric", value=metric)
    if step is not None:
        yield Fact(where=file.where(), name="best.step", value=step)
        history = state.get("log_history")
        evaluated = [
            entry["step"]
            for entry in (history if isinstance(history, list) else ())
            if isinstance(entry, dict) and type(entry.get("step")) is int and any(str(key).startswith("eval_") for key in entry)
        ]
        yield Fact(where=file.where(), name="best.is_last", value=bool(evaluated) and step >= max(evaluated))


def losses(file: File) -> tuple[dict[int, float], int | None]:
    """(Step -> training loss, global_step) of a trainer_state.json; both empty where it cannot be read."""
    data = file.whole(1 << 30)
    state = _parse(data, file) if data else None
    if not isinstance(state, dict):
        return {}, None
    history = state.get("log_history")
    entries = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    last = state.get("global_step")
    found = {entry["step"]: loss for entry in entries if type(entry.get("step")) is int and (loss := number(entry.get("loss"))) is not None}
    return found, last if type(last) is int else None


def _in_checkpoint(path: Path) -> bool:
    return path.parent.name.startswith("checkpoint-")


def _summary(entry: dict[str, Any], file: File) -> Iterator[Event]:
    for name, fact in SUMMARY_FACTS.items():
        if (value := number(entry.get(name))) is not None:
            yield Fact(where=file.where(step=entry["step"]), name=fact, value=value)


def _parse(data: bytes, file: File) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = decode(data)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        file.source.problem(f"damaged JSON ({error}): the records before it are read")
        return _salvage(text)


def _salvage(text: str) -> dict[str, Any]:
    """The intact `{...}` records of a damaged file, and max_steps."""
    history = []
    for found in re.finditer(r"\{[^{}]{8,}\}", text) if '"step"' in text else ():
        if '"step"' not in found[0]:
            continue
        try:
            history.append(json.loads(found[0]))
        except (ValueError, RecursionError):
            continue
    planned = re.search(r'"max_steps": (\d{1,15})\b', text)
    return {"log_history": history, "max_steps": int(planned[1]) if planned else None}
