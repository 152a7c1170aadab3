"""An opinion of the classifier is told only where the log or the config shows a trace of what the cause presupposes."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis.unlisted import candidates
from doctor.diagnosis.unlisted.candidates import opinions_on
from doctor.diagnosis.unlisted.classifier import Opinion
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.rulebook.cause_notes import cause_notes
from tests.diagnosis.unlisted.helpers import read_console

HEAD = 'Traceback (most recent call last):\n  File "/opt/venv/lib/python3.11/site-packages/'


def told(text: str, cause: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether an opinion on this cause is told of the log."""
    monkeypatch.setattr(candidates, "opinions", lambda *_: [Opinion(cause, 0.95)])
    crashes, run = read_console(text, folder)
    seen = LastEvents()
    for crash in crashes:
        seen.see(crash)
    return bool(opinions_on(run, seen, [str(folder / "console.log")]))


@pytest.mark.parametrize(
    ("cause", "without", "with_trace"),
    [
        ("zero3_incompatibility", "RuntimeError: the balance is off", "RuntimeError: the balance of DeepSpeed is off"),
        ("bitsandbytes_cuda_setup", "RuntimeError: the balance is off", "RuntimeError: bitsandbytes has no balance"),
        ("gpu_oom_vision_tokens", "RuntimeError: CUDA out of memory", "RuntimeError: CUDA out of memory in pixel_values"),
    ],
)
def test_a_trace_is_asked_for(cause: str, without: str, with_trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ZeRO without DeepSpeed, of a package that nothing names, of images that nobody gave."""
    assert not told(without, cause, tmp_path, monkeypatch)
    assert told(with_trace, cause, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("torch/distributed/fsdp/fully_sharded_data_parallel.py", False),
        ("accelerate/accelerator.py", False),
        ("deepspeed/runtime/engine.py", False),
        ("peft/peft_model.py", False),
        ("torch/nn/functional.py", True),
        ("datasets/table.py", True),
        ("llamafactory/data/converter.py", True),
    ],
)
def test_the_form_of_the_data(file: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What handles weights and processes never saw a sample, whatever the words of its message are."""
    text = f'{HEAD}{file}", line 9, in weigh\nKeyError: None'
    assert told(text, "dataset_columns_or_tags_mismatch", tmp_path, monkeypatch) is expected


def test_a_cause_that_presupposes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of any failure."""
    assert cause_notes()["hf_stack_api_break"].needs is None
    assert told("RuntimeError: the balance is off", "hf_stack_api_break", tmp_path, monkeypatch)
