"""What ended no run explains no end; and launchers that tell how their child ended."""

from __future__ import annotations

from pathlib import Path

from doctor.diagnosis.pipeline import analyze
from doctor.report.model import Report

STEPS = "".join(f"{{'loss': {1.3 - step / 50:.2f}, 'learning_rate': 1e-05, 'epoch': 0.{step}}}\n" for step in range(1, 6))
CONFIG = "stage: rm\nmodel_name_or_path: m\ndataset: pairs\nfinetuning_type: lora\ntemplate: baichuan2\noutput_dir: out\ndo_train: true\n"


def analyzed(folder: Path, log: str, config: str = "") -> Report:
    (folder / "console.log").write_text(log)
    if config:
        (folder / "train.yaml").write_text(config)
    return analyze(folder)


def test_a_line_above_later_steps_did_not_end_the_run(tmp_path: Path) -> None:
    """The same line at the end of the log is what is told."""
    line = "`trust_remote_code` is not supported anymore.\n"
    (tmp_path / "went-on").mkdir()
    (tmp_path / "last").mkdir()
    assert [one.rule for one in analyzed(tmp_path / "went-on", line + STEPS).findings if one.severity != "note"] == []
    assert analyzed(tmp_path / "last", STEPS + line).findings[0].rule == "config/custom-code"


def test_a_warning_of_the_configuration_explains_no_exception(tmp_path: Path) -> None:
    """The template warns for releases that lack it; the exception is the failure."""
    report = analyzed(tmp_path, "ValueError: Please use ranked datasets for reward modeling or DPO training.\n", CONFIG)
    assert report.verdict == "failed"
    assert report.findings[0].severity == "error"
    assert "ranked datasets" in report.findings[0].evidence[0].text
    assert "config/option-of-another-version" in [one.rule for one in report.findings[1:]]


def test_a_refused_value_is_told_beside_a_warning_of_the_configuration(tmp_path: Path) -> None:
    """The end of the parser's line is all of the log."""
    report = analyzed(tmp_path, "--stage: invalid choice: 'reward' (choose from 'pt', 'sft', 'rm')\n", CONFIG)
    assert report.findings[0].cause == "config_invalid_value"
    assert "'pt', 'sft', 'rm'" in report.findings[0].text


def test_the_launchers_exception_tells_the_signal_that_ended_its_child(tmp_path: Path) -> None:
    """accelerate's simple launcher starts one process and raises what subprocess says of its end."""
    report = analyzed(
        tmp_path,
        "Loading checkpoint shards:   0%|          | 0/2 [00:00<?, ?it/s]\n"
        "Traceback (most recent call last):\n"
        '  File "/opt/venv/lib/python3.11/site-packages/accelerate/commands/launch.py", line 637, in simple_launcher\n'
        "    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)\n"
        "subprocess.CalledProcessError: Command '['/usr/bin/python3', 'tune.py']' died with <Signals.SIGKILL: 9>.\n",
    )
    assert report.findings[0].rule == "memory/killed-while-loading"


def test_a_check_of_ppo_alone_is_not_lifted_by_a_newer_llamafactory(tmp_path: Path) -> None:
    """The release's own pins allow the installed trl, its PPO does not."""
    report = analyzed(
        tmp_path,
        "Traceback (most recent call last):\n"
        '  File "/app/src/llamafactory/train/ppo/workflow.py", line 56, in run_ppo\n'
        '    check_version("trl>=0.8.6,<=0.9.6", mandatory=True)\n'
        '  File "/opt/venv/lib/python3.11/site-packages/transformers/utils/versions.py", line 43, in _compare_versions\n'
        "    raise ImportError(\n"
        "ImportError: trl>=0.8.6,<=0.9.6 is required for a normal functioning of this module, but found trl==0.24.0.\n",
    )
    remedies = report.findings[0].remedies
    assert remedies[0].command == 'pip install "trl>=0.8.6,<=0.9.6"'
    assert not any("llamafactory>=" in (remedy.command or "") for remedy in remedies)
