"""lfdoctor analyze on small runs written by hand: exit codes, streams, the patch file, what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from doctor.cli.main import main

TRAIN = """\
### model
model_name_or_path: Qwen/Qwen2.5-7B-Instruct
stage: sft
do_train: true
finetuning_type: lora  # adapters
dataset: mine
template: qwen
cutoff_len: 4096
output_dir: saves/q
per_device_train_batch_size: 8
gradient_accumulation_steps: 2
hf_hub_token: hf_abcdefghijklmnop1234
"""
STARTED = """\
[INFO|trainer.py:2405] 2025-01-03 10:01:00,000 >> ***** Running training *****
[INFO|trainer.py:2406] 2025-01-03 10:01:00,000 >>   Num examples = 1,000
[INFO|trainer.py:2411] 2025-01-03 10:01:00,000 >>   Total optimization steps = 20
{'loss': 1.5123, 'grad_norm': 0.912, 'learning_rate': 1e-05, 'epoch': 0.5}
"""
OOM = """\
Traceback (most recent call last):
  File "/opt/env/bin/llamafactory-cli", line 8, in <module>
    sys.exit(main())
  File "/opt/env/lib/python3.11/site-packages/transformers/trainer.py", line 3736, in training_step
    self.accelerator.backward(loss, **kwargs)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.65 GiB of which 612.06 MiB is free.
"""
DONE = """\
{'train_runtime': 93.2, 'train_samples_per_second': 10.7, 'train_steps_per_second': 0.21, 'train_loss': 1.1, 'epoch': 1.0}
***** train metrics *****
  epoch                    =        1.0
  train_loss               =        1.1
"""
HEAVY = ("torch", "transformers", "sklearn", "plotly", "pandas", "numpy", "tensorboard", "pynvml")


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """A run that ran out of GPU memory."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.yaml").write_text(TRAIN)
    (run / "console.log").write_text(STARTED + OOM)
    return run


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """A run that completed."""
    run = tmp_path / "fine"
    run.mkdir()
    (run / "console.log").write_text(STARTED + DONE)
    return run


def report_of(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_failed_run_gives_its_cause_and_exit_code_1(failed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The root cause stands first, with the line that proves it."""
    assert main(["analyze", str(failed), "-f", "json"]) == 1
    report = report_of(capsys)
    finding = report["findings"][0]
    assert finding["role"] == "root"
    assert finding["symptom"] == "out_of_memory"
    assert finding["evidence"][0]["line"] == 10
    assert report["run"]["status"] == "failed"
    assert not report["healthy"]


def test_a_healthy_run_gives_exit_code_0(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good news is short; with -v it says what was looked at."""
    assert main(["analyze", str(healthy)]) == 0
    page = capsys.readouterr().out
    assert page.startswith("✓ ")
    assert page.count("\n") <= 12
    assert main(["analyze", str(healthy), "-v"]) == 0
    assert "console, 2 records" in capsys.readouterr().out


def test_fail_on_decides_the_exit_code(failed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`never` reports and still ends with 0."""
    assert main(["analyze", str(failed), "--fail-on", "never", "-f", "json"]) == 0
    assert report_of(capsys)["findings"]
    assert main(["analyze", str(failed), "--fail-on", "warning", "-f", "json"]) == 1


def test_the_patched_config_is_written_whole_and_with_its_secrets(failed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is the user's own YAML, changed; stdout stays the report, and the report masks what the file must hold."""
    target = tmp_path / "next run.yaml"
    assert main(["analyze", str(failed), "-f", "json", "--patch", str(target)]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    text = target.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert "# adapters" in text
    assert values["hf_hub_token"] == "hf_abcdefghijklmnop1234"
    assert "hf_abcdefghijklmnop1234" not in out
    for change in report["patch"]["changes"]:
        if change["target"] == "config" and change["op"] == "set":
            assert values[change["key"]] == change["new"]
    assert f"'{target}'" in report["patch"]["command"]
    assert str(target) in err


def test_the_patch_never_overwrites_a_file(failed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the run's own config nor anything else."""
    assert main(["analyze", str(failed), "--patch", str(failed / "train.yaml")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (failed / "train.yaml").read_text() == TRAIN


def test_no_patch_is_told_and_writes_nothing(healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to patch is no failure."""
    assert main(["analyze", str(healthy), "--patch", str(tmp_path / "p.yaml")]) == 0
    assert "no patched config" in capsys.readouterr().err
    assert not (tmp_path / "p.yaml").exists()


def test_standard_input_is_a_console_log() -> None:
    """`llamafactory-cli train ... 2>&1 | lfdoctor analyze -`."""
    done = subprocess.run(
        [sys.executable, "-m", "doctor", "analyze", "-", "-f", "json"], input=(STARTED + OOM).encode(), capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["symptom"] == "out_of_memory"


def test_nothing_to_read_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder is not a healthy run."""
    assert main(["analyze", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lfdoctor: ")


def test_language_may_come_from_the_environment(failed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """LFDOCTOR_LANG chooses, --lang wins over it."""
    monkeypatch.setenv("LFDOCTOR_LANG", "ko")
    main(["analyze", str(failed)])
    assert "다음에 할 일" in capsys.readouterr().out
    main(["analyze", str(failed), "--lang", "en"])
    assert "Do next" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("console.log", b"\xff\xfe\x00\x00 not text \x80\x81"),
        ("trainer_state.json", b'{"log_history": [{"step": 1, "loss": NaN}, {"step": 2, "lo'),
        ("trainer_log.jsonl", b'{"current_steps": 1, "loss": Infinity}\n{"broken'),
        ("train.yaml", b"- a\n- list\n"),
        ("train.yaml", b"a: [unclosed\n"),
        ("trainer_state.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        ("training_args.bin", b"\x80\x04\x95cos\nsystem\n(S'echo hi'\ntR."),
        ("events.out.tfevents.1.host", b"\x00" * 64),
    ],
)
@pytest.mark.parametrize("kind", ["terminal", "json"])
def test_damaged_files_cost_only_themselves(name: str, content: bytes, kind: str, failed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The finding elsewhere is still made; no traceback."""
    folder = failed / "beside"
    folder.mkdir()
    (folder / name).write_bytes(content)
    assert main(["analyze", str(failed), "-f", kind]) == 1
    out, err = capsys.readouterr()
    assert "CUDA out of memory" in out
    assert "Traceback" not in err


def test_plain_analysis_imports_nothing_heavy(failed: Path) -> None:
    """Neither torch nor any table or plot library is loaded for a console and a config."""
    told = f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    code = f"import sys; from doctor.cli.main import main; main(['analyze', {str(failed)!r}]); {told}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", timeout=120, env={**os.environ})
    assert done.stdout
    assert done.stderr.strip() == "[]"
