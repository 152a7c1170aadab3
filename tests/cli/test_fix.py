"""lfdoctor fix: what it writes, what it prints, what it starts and when it refuses."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import yaml

from doctor.cli.main import main

TRAIN = """\
model_name_or_path: Qwen/Qwen2.5-7B-Instruct
stage: sft
do_train: true
finetuning_type: lora  # adapters
dataset: mine
template: qwen
output_dir: saves/q
per_device_train_batch_size: 8
gradient_accumulation_steps: 2
hf_hub_token: hf_abcdefghijklmnop1234
"""
OOM = """\
[INFO|trainer.py:2405] 2025-01-03 10:01:00,000 >> ***** Running training *****
[INFO|trainer.py:2411] 2025-01-03 10:01:00,000 >>   Total optimization steps = 20
{'loss': 1.5123, 'grad_norm': 0.912, 'learning_rate': 1e-05, 'epoch': 0.5}
Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/transformers/trainer.py", line 3736, in training_step
    self.accelerator.backward(loss, **kwargs)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.65 GiB.
"""
NO_SUCH_DATASET = """\
Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/llamafactory/data/parser.py", line 120, in get_dataset_list
    raise ValueError(f"Undefined dataset {name} in {DATA_CONFIG}.")
ValueError: Undefined dataset mine in dataset_info.json.
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a failed run in `run/`, a launch script that sets a variable, and a stand-in for llamafactory-cli on PATH."""
    run, programs = tmp_path / "run", tmp_path / "bin"
    run.mkdir()
    programs.mkdir()
    (run / "train.yaml").write_text(TRAIN)
    (run / "console.log").write_text(OOM)
    (run / "command.sh").write_text("WANDB_MODE=offline llamafactory-cli train train.yaml\n")
    program = programs / "llamafactory-cli"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "open('started', 'w').write(' '.join([os.environ.get('WANDB_MODE', '-'), *sys.argv[1:]]))\nsys.exit(7)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_patched_yaml_is_written_whole_and_shown_masked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file holds the user's secrets and comments; the page shows diff and command, not the secret."""
    assert main(["fix", "run", "--gpu-memory", "24"]) == 0
    page = capsys.readouterr().out
    text = (here / "train-patched.yaml").read_text()
    values = yaml.safe_load(text)
    assert values["hf_hub_token"] == "hf_abcdefghijklmnop1234"
    assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 16
    assert "# adapters" in text
    assert "hf_abcdefghijklmnop1234" not in page
    assert "WANDB_MODE=offline llamafactory-cli train train-patched.yaml" in page
    assert "-per_device_train_batch_size: 8" in page


def test_analyze_prints_the_command_that_fix_repeats(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The printed command carries what the user said of the card, so it writes the patch that was shown."""
    assert main(["analyze", "run", "--gpu-memory", "30", "--strategy", "guide", "-v"]) == 1
    page = capsys.readouterr().out.split("\n")
    line = next(line.strip() for line in page if line.strip().startswith("lfdoctor fix"))
    assert shlex.split(line)[1:] == ["fix", "run", "--gpu-memory", "30", "--strategy", "guide", "-o", "train-patched.yaml"]
    assert main(shlex.split(line)[1:]) == 0
    shown = {row.strip() for row in page if row.strip().startswith(("+", "-"))}
    assert {row.strip() for row in capsys.readouterr().out.split("\n") if row.strip().startswith(("+", "-"))} == shown
    assert (here / "train-patched.yaml").is_file()


def test_nothing_is_overwritten_and_our_own_file_is_not_read_as_the_run_s(here: Path) -> None:
    """A second call in the run's folder starts from the user's YAML again and takes the next free name."""
    folder = here / "run"
    (folder / "train-patched.yaml").write_text(TRAIN.replace("size: 8", "size: 3"))
    assert main(["fix", "run", "-o", "run/train-patched.yaml"]) == 2
    assert main(["fix", "run"]) == 0
    assert main(["fix", "run"]) == 0
    first, second = (here / name for name in ("train-patched.yaml", "train-patched-2.yaml"))
    assert first.read_text() == second.read_text()
    assert yaml.safe_load(first.read_text())["per_device_train_batch_size"] == 2


def test_start_runs_the_command_with_its_variables(here: Path) -> None:
    """The exit code is the training's."""
    assert main(["fix", "run", "--start", "--yes"]) == 7
    assert (here / "started").read_text() == "offline train train-patched.yaml"


def test_start_asks(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal nobody can answer: nothing is written. With one, `n` leaves the patch and starts nothing."""
    assert main(["fix", "run", "--start"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert not (here / "train-patched.yaml").exists()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, err: "llamafactory-cli" not in question)
    assert main(["fix", "run", "--start"]) == 1
    assert not (here / "started").exists()


@pytest.mark.parametrize("variable", ["$SCRATCH/data", "${SCRATCH}/data"])
def test_unknown_values_are_not_guessed(here: Path, capsys: pytest.CaptureFixture[str], variable: str) -> None:
    """A variable of the launch script that is not known here: the user starts it."""
    (here / "run" / "command.sh").write_text(f"llamafactory-cli train train.yaml dataset_dir={variable}\n")
    assert main(["fix", "run", "--start", "--yes"]) == 2
    assert "start it yourself" in capsys.readouterr().err
    assert not (here / "started").exists()


def test_without_a_cure_in_the_config_nothing_is_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page says what helps instead, and the exit code stays that of the failure."""
    (here / "run" / "console.log").write_text(NO_SUCH_DATASET)
    assert main(["fix", "run"]) == 1
    assert "dataset_info.json" in capsys.readouterr().out
    assert [path.name for path in here.iterdir() if path.suffix == ".yaml"] == []


@pytest.mark.parametrize("installed", [True, False])
def test_start_needs_the_packages_in_the_python_of_the_training(here: Path, capsys: pytest.CaptureFixture[str], installed: bool) -> None:
    """The patch needs liger-kernel: started if the Python beside llamafactory-cli has it, else told to install it."""
    (here / "run" / "train.yaml").write_text(TRAIN.replace("per_device_train_batch_size: 8", "per_device_train_batch_size: 1"))
    python = here / "bin" / "python"
    python.write_text(f"#!/bin/sh\nexit {0 if installed else 1}\n")
    python.chmod(0o755)
    code = main(["fix", "run", "--start", "--yes"])
    assert (here / "started").exists() is installed
    assert code == (7 if installed else 2)
    assert ("pip install liger-kernel" in capsys.readouterr().err) is not installed
