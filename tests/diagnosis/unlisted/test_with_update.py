"""A library that failed on something of its own is to be updated, with what is installed told; a model's own code never asks for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.reporters.advice import todo

SITE = "/opt/env/lib/python3.11/site-packages/"
HEAD = 'Traceback (most recent call last):\n  File "/home/me/start.py", line 8, in <module>\n    trainer.train()\n'


def first_step(folder: Path, frame: str, last: str, before: str = "") -> tuple[str, str | None]:
    (folder / "console.log").write_text(f"{before}{HEAD}{frame}{last}\n", encoding="utf-8")
    step = todo(analyze(folder))[0]
    return step.text, step.command


TRL = f'  File "{SITE}trl/trainer/dpo_trainer.py", line 700, in get_batch_loss_metrics\n    x = batch[name]\n'


def test_the_library_whose_code_raised_is_updated_with_its_version_told(tmp_path: Path) -> None:
    """A KeyError over a name that trl itself made."""
    text, command = first_step(tmp_path, TRL, "KeyError: 'reference_chosen_logps'", "- TRL version: 0.9.6\n")
    assert text.startswith("Update trl, inside which the exception was raised: 0.9.6 is installed.")
    assert command == "pip install -U trl"


def test_without_a_version_none_is_named(tmp_path: Path) -> None:
    text, command = first_step(tmp_path, TRL, "KeyError: 'reference_chosen_logps'")
    assert "`pip show trl` tells the installed release" in text
    assert command == "pip install -U trl"


def test_llamafactorys_limit_bounds_the_update(tmp_path: Path) -> None:
    """LLaMA-Factory 0.9.3 pins trl below 0.10 (its setup.py): within it there is nothing newer than 0.9.6."""
    before = "- `llamafactory` version: 0.9.3\n- TRL version: {}\n"
    _, old = first_step(tmp_path, TRL, "KeyError: 'reference_chosen_logps'", before.format("0.8.6"))
    _, newest = first_step(tmp_path, TRL, "KeyError: 'reference_chosen_logps'", before.format("0.9.6"))
    assert old == 'pip install -U "trl<=0.9.6"'
    assert newest is None or "trl" not in newest


def test_a_failure_inside_bitsandbytes_is_no_missing_library(tmp_path: Path) -> None:
    """A bias that is None is mended by a newer release; a C function of None is a library that did not load."""
    frame = f'  File "{SITE}bitsandbytes/nn/modules.py", line 301, in _save_to_state_dict\n    self.weight.detach()\n'
    text, command = first_step(tmp_path, frame, "AttributeError: 'NoneType' object has no attribute 'detach'")
    assert "bitsandbytes" in text
    assert command == "pip install -U bitsandbytes"
    frame = f'  File "{SITE}bitsandbytes/functional.py", line 301, in get_ptr\n    lib.cget_managed_ptr()\n'
    first_step(tmp_path, frame, "AttributeError: 'NoneType' object has no attribute 'cget_managed_ptr'")
    assert analyze(tmp_path).findings[0].cause == "bitsandbytes_cuda_setup"


@pytest.mark.parametrize(
    "last",
    [
        "AttributeError: 'BaichuanTokenizer' object has no attribute 'sp_model'",
        "TypeError: ChatGLMTokenizer._pad() got an unexpected keyword argument 'padding_side'",
    ],
)
def test_a_models_own_class_wants_the_transformers_of_its_time(last: str, tmp_path: Path) -> None:
    """transformers exports neither class in any release, so no update of anything has the name."""
    (tmp_path / "console.log").write_text(last + "\n", encoding="utf-8")
    report = analyze(tmp_path)
    step = todo(report)[0]
    assert "`transformers_version`" in step.text or "padding_side" in report.findings[0].text
    assert not any("git pull" in (one.command or "") for one in todo(report))


def test_a_class_of_a_library_is_none_of_the_model(tmp_path: Path) -> None:
    """LlamaTokenizer is exported by transformers: nothing is said of the model's code."""
    (tmp_path / "console.log").write_text("AttributeError: 'LlamaTokenizer' object has no attribute 'xyz_tokens_of'\n", encoding="utf-8")
    assert not any("config.json in its folder" in one.text for one in todo(analyze(tmp_path)))
