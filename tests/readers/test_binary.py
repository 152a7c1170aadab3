"""training_args.bin and event files: read without the libraries that wrote them, and harmless whatever they hold."""

from __future__ import annotations

import collections
import contextlib
import enum
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.readers.formats.pickles import PickledObject, replay
from tests.readers.helpers import Seen, frame, scalar_event, text_event

EXPECTED = (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, MemoryError)


class Strategy(enum.Enum):
    """Stands for transformers' enumerations."""

    STEPS = "steps"


class Arguments:
    """Stands for TrainingArguments: a plain object with attributes."""


def save(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("training_args/data.pkl", data)


def arguments() -> Arguments:
    made = Arguments()
    made.__dict__ |= {
        "learning_rate": 5e-05, "per_device_train_batch_size": 2, "eval_strategy": Strategy.STEPS, "bf16": True, "report_to": ["none"],
        "deepspeed": None, "generation_max_length": 1024, "_n_gpu": 1, "logging_dir": "x" * 300, "fsdp": [], "some": {1, 2},
        "extra": collections.OrderedDict(a=1),
    }  # fmt: skip
    return made


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arguments_without_unpickling(tmp_path: Path, protocol: int):
    """Every pickle protocol gives the same options; enumerations are their values, cutoff_len is what was handed down."""
    save(tmp_path / "training_args.bin", pickle.dumps(arguments(), protocol))
    values = Seen(tmp_path).config
    expected = {"learning_rate": 5e-05, "per_device_train_batch_size": 2, "bf16": True, "report_to": ["none"], "cutoff_len": 1024}
    assert expected.items() <= values.items()
    assert values["eval_strategy"] == "steps" if protocol >= 2 else True
    assert "_n_gpu" not in values


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_does_nothing(tmp_path: Path, zipped: bool):
    """A pickle that would run a command is a record of that wish, and nothing has run."""
    mark = tmp_path / "PWNED"
    data = pickle.dumps({"a": Hostile(str(mark))})
    if zipped:
        save(tmp_path / "training_args.bin", data)
    else:
        (tmp_path / "training_args.bin").write_bytes(data)
    (tmp_path / "console.log").write_text("a line\n")
    seen = Seen(tmp_path)
    assert not mark.exists()
    assert any("no training arguments" in problem for problem in seen.problems)
    wish = replay(data)["a"]
    assert isinstance(wish, PickledObject)
    assert wish.name.endswith("system")


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_the_pickle_reader(noise: bytes, place: int):
    """Garbled pickles raise only what the reader of the file expects."""
    data = pickle.dumps(arguments())
    for bytes_ in (noise, data[:place] + noise + data[place:], data[:place]):
        with contextlib.suppress(*EXPECTED):
            replay(bytes_)


def events(folder: Path, data: bytes, name: str = "events.out.tfevents.1700000000.host.1.0") -> Seen:
    (folder / "runs").mkdir(exist_ok=True)
    (folder / "runs" / name).write_bytes(data)
    return Seen(folder)


def test_scalars_of_an_event_file(tmp_path: Path):
    """Simple values and tensors, under the trainer's names; other writers' tags too."""
    data = frame(b"\x1a\rbrain.Event:2")
    for step in (10, 20):
        data += scalar_event(step, "train/loss", step / 8) + scalar_event(step, "train/grad_norm", 2.5, tensor=True)
    data += scalar_event(20, "eval/loss", 1.5) + scalar_event(20, "train/train_loss", 9.0) + scalar_event(30, "Loss/Train", 0.5)
    seen = events(tmp_path, data)
    assert seen.series("loss") == [(10, 1.25), (20, 2.5), (30, 0.5)]
    assert seen.series("eval_loss") == [(20, 1.5)]
    assert seen.series("grad_norm") == [(10, 2.5), (20, 2.5)]
    assert seen.steps[0].time == 1.7e9


def test_the_configuration_in_an_event_file(tmp_path: Path):
    """The Trainer stores its arguments and the model's configuration as text: all that a crashed run keeps of them."""
    data = text_event("args/text_summary", '{"learning_rate": 5e-05, "bf16": true, "deepspeed": null}')
    data += text_event("model_config/text_summary", '{"hidden_size": 64}') + text_event("args", "no json")
    seen = events(tmp_path, data)
    assert seen.config == {"learning_rate": 5e-05, "bf16": True}
    assert seen.facts["model.config"] == {"hidden_size": 64}


def test_two_event_files_of_a_resumed_run(tmp_path: Path):
    """A resume writes a second file; with trainer_log beside them each value lands in the attempt with its loss."""
    events(tmp_path, b"".join(scalar_event(step, "train/loss", step / 8) for step in (1, 2, 3)))
    seen = events(
        tmp_path, b"".join(scalar_event(step, "train/loss", step / 4) for step in (3, 4)), "events.out.tfevents.1700000009.host.1.0"
    )
    assert [(step.attempt, step.step, step.metrics["loss"]) for step in seen.steps] == [
        (0, 1, 0.125), (0, 2, 0.25), (0, 3, 0.375), (1, 3, 0.75), (1, 4, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 13, 30, 47])
def test_a_torn_event_file_keeps_what_is_whole(tmp_path: Path, cut: int):
    """The last event of a killed run may be torn anywhere."""
    one = scalar_event(1, "train/loss", 0.5)
    seen = events(tmp_path, one * 1 + scalar_event(2, "train/loss", 0.25) + one[:cut])
    assert seen.series("loss") == [(1, 0.5), (2, 0.25)]
    assert seen.problems


def test_an_impossible_length_ends_the_reading(tmp_path: Path):
    """A frame that claims terabytes is damage, not an order to allocate them."""
    seen = events(tmp_path, scalar_event(1, "train/loss", 0.5) + struct.pack("<QI", 1 << 50, 0) + b"x" * 100)
    assert seen.series("loss") == [(1, 0.5)]
    assert any("damaged" in problem for problem in seen.problems)
