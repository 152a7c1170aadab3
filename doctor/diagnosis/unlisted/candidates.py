"""What a failed run shows to the classifier, and the classifier's opinions on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from doctor.core.run import Run
from doctor.diagnosis.unlisted.answer import raised
from doctor.diagnosis.unlisted.classifier import Opinion, opinions
from doctor.diagnosis.unlisted.features import ExceptionFeatures, config_features
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.tokens import telling_lines
from doctor.rulebook.cause_notes import cause_notes
from doctor.support.files import end_of_file

WITHOUT_SAMPLES = (
    "accelerate/", "bitsandbytes/", "deepspeed/", "flash_attn/", "huggingface_hub/", "peft/", "ray/", "safetensors/",
    "torch/distributed/", "vllm/",
)  # fmt: skip
"""Packages (and parts of torch) whose failures say nothing of the form of the training data: they handle weights and processes."""
_BYTES = 96 << 10
"""Bytes from the end of a log that are read: a few hundred lines."""


def opinions_on(run: Run, seen: LastEvents, files: Iterable[str]) -> list[Opinion]:
    """The causes that the failure may have, most probable first; `files` are the run's logs.

    Left out is a cause of which the log and the config show no trace, and one of the data's form where the exception came out of a library
    that never sees a sample.
    """
    features, lines = what_is_seen(run, seen, files)
    text = "\n".join((*lines, features.text, *(place.name for place in features.path), *map(str, run.config.items())))
    notes, blind = (
        cause_notes(),
        features.raised is not None and f"{features.raised.package}/{features.raised.module}".startswith(WITHOUT_SAMPLES),
    )
    return [
        one
        for one in opinions(features, lines)
        if (note := notes.get(one.cause)) is not None and note.is_possible(text) and not (blind and note.family == "data")
    ]


def what_is_seen(run: Run, seen: LastEvents, files: Iterable[str]) -> tuple[ExceptionFeatures, list[str]]:
    """The features of the earliest exception that is no echo (of the config alone, if there is none), and the log's telling lines."""
    first = next((one.features for one in raised(run, seen)), None)
    return first or ExceptionFeatures(config=config_features(run)), end_of_log(files)


def end_of_log(files: Iterable[str]) -> list[str]:
    """The telling lines of the first log that can be read as text."""
    for file in dict.fromkeys(filter(None, files)):
        try:
            data = end_of_file(Path(file), _BYTES)
        except OSError:
            continue
        if b"\0" not in data:
            return telling_lines(data.decode("utf-8", "replace"))
    return []
