"""Metric records printed to a console: the Trainer's dict lines in all spellings, JSON lines, step lines of other trainers."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache

import msgspec

from doctor.readers.values import duration_seconds, number
from doctor.support.decoding import json_decoder

_NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|NaN|inf|Infinity)"
_DICT = re.compile(r"\{\s*['\"][\w/@.()% -]{1,100}['\"]: [^{}]{1,20000}\}")
_PAIR = re.compile(rf"['\"]([\w/@.()% -]{{1,100}})['\"]: (?:tensor\(|np\.float\d+\()?(['\"]?)({_NUMBER})\2(?=[,}})\s])")
_STEP_TEXT = re.compile(r"['\"](?:global_step/max_steps|step/total)['\"]: ['\"](\d+)/(\d+)")
_OTHER_STEP = re.compile(r"\b(?:global[_ ]?step|step|iteration|iter)s?\b[\s:=]*\[?\s*(\d{1,12})(?:\s*/\s*(\d{1,12}))?", re.I)
_OTHER_PAIR = re.compile(rf"(?<![A-Za-z])([A-Za-z][\w/.-]*+(?: [a-z][\w-]*+){{0,3}}(?: \((?:ms|s)\))?)\s*[:=]\s*({_NUMBER})(?![\w.])")
ALIASES = {
    "lr": "learning_rate", "lm loss": "loss", "train_loss": "loss", "avg_train_loss": "loss", "training loss": "loss",
    "val_loss": "eval_loss", "valid_loss": "eval_loss", "grad norm": "grad_norm", "learning rate": "learning_rate", "train/loss": "loss",
    "eval/loss": "eval_loss", "training_loss": "loss", "validation loss": "eval_loss", "loss/train": "loss", "loss/val": "eval_loss",
}  # fmt: skip
"""Name that other trainers print -> name in trainer_state.json."""
_OTHER_STEPS = ("step", "iteration", "iter", "global_step", "total_steps", "steps")
_MEGATRON = re.compile(r"\biteration +(\d{1,12})/ *(\d{1,12}) \|.*\belapsed time per iteration \(ms\): ([\d.]{1,20}) \|")
_MEGATRON_EVAL = re.compile(rf"\bvalidation loss at iteration (\d{{1,12}})\b[^|]{{0,80}}\| lm loss value: ({_NUMBER})")
_MEGATRON_COUNTS = ("consumed samples", "skipped samples", "global batch size", "number of skipped iterations", "number of nan iterations")
"""What a line of Megatron counts: no metric of the training."""
_STEPS = ("current_steps", "global_step", "step")
_RECORD_SIGNS = ("'loss'", '"loss"', "'eval_", '"eval_', "'train_runtime'", "'reward'", "'rewards/", '"train_runtime"', "_loss'")


class MetricRecord:
    """One printed record. `step`, `total` and `seconds` are None where it does not print them."""

    __slots__ = ("logger", "metrics", "seconds", "step", "total")

    def __init__(self, metrics: dict[str, float], step: int | None, total: int | None, seconds: float | None, logger: bool) -> None:
        self.metrics, self.step, self.total, self.seconds, self.logger = metrics, step, total, seconds, logger


def printed(text: str) -> MetricRecord | None:
    """The record of a line, or None. `logger`: LLaMA-Factory's own logger printed it, and the Trainer prints it again."""
    if "{" in text and any(word in text for word in _RECORD_SIGNS):
        found = _DICT.search(text)
        if found is not None and (record := _of_dict(found[0], ">>" in text[: found.start()] or " - " in text[: found.start()])):
            return record
    if "iteration " in text and (record := _of_megatron(text)) is not None:
        return record
    return _of_other(text) if "oss" in text else None


_decode_plain = json_decoder(dict[str, float], strict=False).decode
"""Also accepts numbers as text, as transformers 5 prints them."""


def plain(raw: bytes) -> MetricRecord | None:
    """The record of a line that is only the Trainer's flat dict with a loss; None for other lines (`printed` reads more)."""
    try:
        metrics = _decode_plain(raw.replace(b"'", b'"'))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return MetricRecord(metrics, None, None, None, False) if "loss" in metrics and metrics.keys().isdisjoint(_STEPS) else None


def _pairs(text: str) -> dict[str, float]:
    """The numbers of a dict line: by splitting if it is flat, else by searching for pairs."""
    try:
        pairs = dict([pair.split(": ") for pair in text[1:-1].replace("'", "").split(", ")])
        return {name: float(value) for name, value in pairs.items()}
    except ValueError:
        return {name: float(value) for name, _, value in _PAIR.findall(text)}


def _of_dict(text: str, logger: bool) -> MetricRecord | None:
    metrics = _pairs(text)
    step = next((int(metrics.pop(key)) for key in _STEPS if metrics.get(key, 0.5) % 1 == 0), None)
    total = seconds = None
    if '"current_steps"' in text:
        return _of_json(text)
    if "/" in text and (found := _STEP_TEXT.search(text)):
        step, total = int(found[1]), int(found[2])
    if not any(name.endswith("loss") or name in ("reward", "train_runtime") or name.startswith("eval_") for name in metrics):
        return None
    return MetricRecord(metrics, step, total, seconds, logger)


def _of_json(text: str) -> MetricRecord | None:
    """A record of trainer_log.jsonl pasted into a console."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    step, total = values.get("current_steps"), values.get("total_steps")
    if type(step) is not int:
        return None
    skip = ("current_steps", "total_steps", "percentage", "elapsed_time", "remaining_time")
    metrics = {
        ALIASES.get(name, name): figure for name, value in values.items() if name not in skip and (figure := number(value)) is not None
    }
    return MetricRecord(metrics, step, total if type(total) is int else None, duration_seconds(values.get("elapsed_time")), False)


def _of_other(text: str) -> MetricRecord | None:
    """`iteration 10/ 1000 | lm loss: 6.1E+00 | ...`, `step:10/300, avg_train_loss:2.99 ...`, `epoch: 0, step: 1, loss: 2.12, ...`."""
    if len(text) > 5000:
        return None
    text = text.rpartition(" >> ")[2]  # behind the name and line of LLaMA-Factory's logger
    step = _OTHER_STEP.search(text)
    if step is None:
        return None
    pairs = {name.lower(): (name, float(value)) for name, value in _OTHER_PAIR.findall(text)}
    total = step[2] or pairs.get("total_steps", ("", None))[1]
    metrics = {ALIASES.get(low, name): value for low, (name, value) in pairs.items() if low not in _OTHER_STEPS}
    if not any(name.lower().endswith("loss") for name in metrics):
        return None
    return MetricRecord(metrics, int(step[1]), int(total) if total else None, None, False)


def _between_bars(text: str) -> dict[str, float]:
    """The numbers of `label: number | label: number`, by splitting if each is so written, else by searching for pairs."""
    parts = (part.partition(": ") for part in text.split("|"))
    try:
        found = {_label(label): float(value) for label, colon, value in parts if colon}
    except ValueError:
        return {name.lower(): float(value) for name, value in _OTHER_PAIR.findall(text)}
    found.pop("", None)
    return found


@lru_cache(1024)
def _label(text: str) -> str:
    """The name in the text before a colon; cached, as all records have the same."""
    found = _OTHER_PAIR.search(f"{text}: 0")
    return found[1].lower() if found else ""


def _of_megatron(text: str) -> MetricRecord | None:
    """A line of Megatron's training log, or the one of an evaluation.

    ` iteration 10/ 200 | consumed samples: 160 | elapsed time per iteration (ms): 812.4 | ... | lm loss: 2.8E+00 | grad norm: 1.2 | ...`
    """
    if "validation loss at" in text and (found := _MEGATRON_EVAL.search(text)) is not None:
        return MetricRecord({"eval_loss": float(found[2])}, int(found[1]), None, None, False)
    if len(text) > 5000 or "elapsed time per" not in text or (found := _MEGATRON.search(text)) is None:
        return None
    pairs = _between_bars(text[found.start() :])
    metrics = {ALIASES.get(name, name): value for name, value in pairs.items() if name not in _MEGATRON_COUNTS and "time per" not in name}
    metrics["step_seconds"] = float(found[3]) / 1000
    skipped, nan = pairs.get("number of skipped iterations"), pairs.get("number of nan iterations")
    if nan or (skipped == 0 and "loss" not in metrics):
        metrics["loss"] = math.nan  # Megatron leaves a loss out that is not >= 0, and counts those of skipped iterations
    elif skipped and metrics.get("loss") == 0:
        del metrics["loss"]  # no iteration advanced: the mean of nothing
    return MetricRecord(metrics, int(found[1]), int(found[2]), None, False)
