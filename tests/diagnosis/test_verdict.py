"""What may be said of a run follows from what was read: no tick without evidence, no failure without its exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import doctor
from doctor.cli.main import main

STARTED = """\
[INFO|trainer.py:2405] 2025-01-03 10:01:00,000 >> ***** Running training *****
[INFO|trainer.py:2406] 2025-01-03 10:01:00,000 >>   Num examples = 1,000
[INFO|trainer.py:2407] 2025-01-03 10:01:00,000 >>   Num Epochs = 3
[INFO|trainer.py:2411] 2025-01-03 10:01:00,000 >>   Total optimization steps = {total}
"""
SAVED = """\
[INFO|trainer.py:3503] 2025-01-03 11:00:00,000 >> Saving model checkpoint to saves/x
{{'train_runtime': 3593.2, 'train_samples_per_second': 10.7, 'train_steps_per_second': 0.21, 'train_loss': 1.1, 'epoch': {epoch}}}
***** train metrics *****
  epoch                    =        {epoch}
  train_loss               =        1.1
"""
UNKNOWN_CRASH = """\
preparing the night shift
Traceback (most recent call last):
  File "/home/kim/train_wrapper.py", line 31, in <module>
    main()
  File "/home/kim/train_wrapper.py", line 12, in main
    raise StageError("stage table is empty")
StageError: stage table is empty
"""


def losses(last: int, every: int = 10, total: int = 100) -> str:
    return "".join(
        f"{{'loss': {2 - step / 10000:.4f}, 'grad_norm': 0.9, 'learning_rate': 1e-05, 'epoch': {3 * step / total:.2f}}}\n"
        for step in range(every, last + 1, every)
    )


def trainer_log(last: int, total: int, every: int = 10) -> str:
    rows = (
        {
            "current_steps": step,
            "total_steps": total,
            "loss": 2 - step / total,
            "lr": 1e-5,
            "epoch": 3 * step / total,
            "percentage": round(100 * step / total, 2),
        }
        for step in range(every, last + 1, every)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def analyzed(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Any]:
    code = main(["analyze", str(folder), "-f", "json", *more])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("console.log", b"hello world\n"),
        ("console.log", STARTED.format(total=100).encode()),
        ("data.log", b"name,age\nkim,3\nlee,4\n"),
        ("events.out.tfevents.1.host", b"\x00" * 64),
        ("trainer_log.jsonl", b"not json at all\n"),
    ],
)
def test_what_tells_nothing_is_undecided(name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No step, no end, no error: exit code 3, not healthy, and the page says what was read and what would help."""
    (tmp_path / name).write_bytes(content)
    code, report = analyzed(tmp_path, capsys)
    assert code == 3
    if report is not None:  # nothing at all to read is told on standard error
        assert (report["verdict"], report["healthy"]) == ("undecided", False)
        main(["analyze", str(tmp_path)])
        page = capsys.readouterr().out
        assert page.startswith("? Nothing could be judged.")
        assert name in "".join(page.split())
        assert "tee console.log" in " ".join(page.split())


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_log_is_not_healthy(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, whether or not there is a report."""
    (tmp_path / "console.log").write_bytes(content)
    code, report = analyzed(tmp_path, capsys)
    assert code == 3
    assert report is None or report["verdict"] == "undecided"


def test_a_configuration_alone_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`analyze` cannot tick a YAML: it names `lfdoctor check`."""
    (tmp_path / "train.yaml").write_text("stage: sft\nmodel_name_or_path: x/y\nfinetuning_type: lora\ntemplate: qwen\ndataset: d\n")
    code, report = analyzed(tmp_path, capsys)
    assert (code, report["verdict"]) == (3, "undecided")
    main(["analyze", str(tmp_path)])
    assert "lfdoctor check" in " ".join(capsys.readouterr().out.split())


def test_a_tick_needs_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log that stops after good steps is undecided (exit code 0: steps were judged); a closing line without steps is a completed run."""
    (tmp_path / "trainer_log.jsonl").write_text(trainer_log(200, 1000))
    code, shown = analyzed(tmp_path, capsys)
    assert (code, shown["verdict"], shown["healthy"], shown["run"]["status"]) == (0, "undecided", False, "unknown")
    other = tmp_path / "other"
    other.mkdir()
    (other / "console.log").write_text(SAVED.format(epoch="3.0"))
    report = doctor.analyze(other)
    assert (report.verdict, report.run.status) == ("healthy", "completed")


@pytest.mark.parametrize(
    ("last", "total", "status"),
    [(512, 2826, "ended_early"), (510, 2826, "ended_early"), (2820, 2826, "completed"), (2826, 2826, "completed")],
)
def test_completed_means_the_last_step(last: int, total: int, status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that saved and closed normally at step 512 of 2826 ended early, and the page says how far it came; the last logged
    step of a full run may lie one logging interval before its end."""
    every = 1 if last % 10 else 10
    (tmp_path / "trainer_log.jsonl").write_text(trainer_log(last, total, every))
    (tmp_path / "console.log").write_text(STARTED.format(total=total) + SAVED.format(epoch=f"{3 * last / total:.2f}"))
    code, report = analyzed(tmp_path, capsys)
    assert (code, report["run"]["status"]) == (0, status)
    main(["analyze", str(tmp_path)])
    page = " ".join(capsys.readouterr().out.split())
    if status == "ended_early":
        assert f"step {last} of 2826 (18 %), saved as after a normal end" in page
    else:
        assert "ended" not in page.partition("Files read")[0]


def test_steps_that_were_worked_out_do_not_prove_an_early_end(tmp_path: Path) -> None:
    """A resumed run prints its remaining records only; counted from one they look short, and the closing line decides."""
    resumed = "".join(f"{{'loss': {2 - step / 100:.4f}, 'grad_norm': 0.9, 'learning_rate': 1e-05}}\n" for step in range(6, 21))
    started = STARTED.format(total=20).replace("  Num Epochs = 3", "  Continuing training from global step 5")
    (tmp_path / "console.log").write_text(started + resumed + SAVED.format(epoch="1.0"))
    assert doctor.analyze(tmp_path).run.status == "completed"


def test_a_failure_that_no_rule_knows_is_told_by_its_exception(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Failed, exit code 1; the title is class and message, the last lines are quoted; in Korean and Chinese too."""
    (tmp_path / "console.log").write_text(STARTED.format(total=100) + losses(50) + UNKNOWN_CRASH)
    code, report = analyzed(tmp_path, capsys)
    assert (code, report["verdict"], report["healthy"], report["run"]["status"]) == (1, "failed", False, "failed")
    root = report["findings"][0]
    assert (root["role"], root["severity"], root["cause"], root["title"]) == (
        "root",
        "error",
        None,
        "StageError: stage table is empty",
    )
    quoted = "\n".join(piece["text"] for piece in root["evidence"])
    assert "train_wrapper.py" in quoted
    assert quoted.rstrip().endswith("StageError: stage table is empty")
    assert report["patch"] is None
    assert doctor.analyze(tmp_path, lang="ko").findings[0].title == "StageError: stage table is empty"


def test_an_unknown_exception_goes_before_the_launchers_echo_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torchrun's "exit code 1" is a consequence; the title is still the exception's."""
    echo = (
        "E0103 10:02:00.000000 1 site-packages/torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1) local_rank: 0 "
        "(pid: 42) of binary: /opt/env/bin/python\n"
    )
    (tmp_path / "console.log").write_text(STARTED.format(total=100) + losses(50) + UNKNOWN_CRASH + echo)
    code, report = analyzed(tmp_path, capsys)
    root = report["findings"][0]
    assert (code, root["role"], root["severity"], root["title"]) == (1, "root", "error", "StageError: stage table is empty")


def test_a_failure_without_any_words_is_told_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A launcher's exit code without a traceback: no tick."""
    block = (
        "E0103 10:02:00.000000 1 site-packages/torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1) local_rank: 0 "
        "(pid: 42) of binary: /opt/env/bin/python\n"
    )
    (tmp_path / "console.log").write_text(STARTED.format(total=100) + losses(50) + block)
    code, report = analyzed(tmp_path, capsys)
    assert (code, report["verdict"]) == (1, "failed")


def test_an_exception_after_the_training_completed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training is completed; what failed afterwards stands first as a warning."""
    (tmp_path / "console.log").write_text(STARTED.format(total=100) + losses(100) + SAVED.format(epoch="3.0") + UNKNOWN_CRASH)
    code, report = analyzed(tmp_path, capsys)
    root = report["findings"][0]
    assert (report["run"]["status"], report["verdict"], code) == ("completed", "unhealthy", 0)
    assert (root["severity"], root["title"]) == ("warning", "After the training completed: StageError: stage table is empty")


def test_a_traceback_that_breaks_off_after_the_training_completed_is_told(tmp_path: Path) -> None:
    """No tick: something failed there, though its exception is missing."""
    text = (
        STARTED.format(total=100)
        + losses(100)
        + SAVED.format(epoch="3.0")
        + UNKNOWN_CRASH.partition("StageError:")[0].partition("    raise")[0]
    )
    (tmp_path / "console.log").write_text(text, encoding="utf-8")
    report = doctor.analyze(tmp_path)
    assert [(one.severity, one.title) for one in report.findings if one.severity != "note"] == [
        ("warning", "After the training completed: The log breaks off inside a traceback: its exception is missing.")
    ]
    assert not report.healthy


def test_the_final_metrics_are_no_teardown(tmp_path: Path) -> None:
    """They stand below the line that says that the training is completed, and are of the training."""
    metrics = "***** train metrics *****\n  epoch = 3.0\n  train_loss               =        0.0\n  train_runtime            = 0:02:59.80\n"
    (tmp_path / "console.log").write_text(metrics, encoding="utf-8")
    report = doctor.analyze(tmp_path)
    assert [(one.severity, one.rule) for one in report.findings] == [("error", "stability/final-loss-zero")]


def test_an_exception_before_the_end_that_the_run_survived_is_not_told(tmp_path: Path) -> None:
    """A caught exception of a run that then completed stays out of the findings."""
    (tmp_path / "console.log").write_text(STARTED.format(total=100) + losses(50) + UNKNOWN_CRASH + losses(100) + SAVED.format(epoch="3.0"))
    report = doctor.analyze(tmp_path)
    assert (report.run.status, report.verdict) == ("completed", "healthy")


def test_fail_on_never_reports_a_failure_with_exit_code_0_but_nothing_read_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--fail-on never` is about findings and failures; that nothing could be judged stays visible."""
    (tmp_path / "console.log").write_text(STARTED.format(total=100) + UNKNOWN_CRASH)
    assert analyzed(tmp_path, capsys, "--fail-on", "never")[0] == 0
    (tmp_path / "console.log").write_text("hello world\n")
    assert analyzed(tmp_path, capsys, "--fail-on", "never")[0] == 3


def test_check_ticks_only_a_training_configuration() -> None:
    """A mapping of foreign keys is not judged healthy, a plain training configuration is."""
    good = {
        "model_name_or_path": "x/y",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset": "d",
        "dataset_dir": "ONLINE",
        "template": "qwen",
        "output_dir": "o",
        "bf16": True,
    }
    assert doctor.check(good).verdict == "healthy"
    foreign = doctor.check({"services": {"web": {"image": "nginx"}}, "version": "3"})
    assert foreign.verdict in ("undecided", "unhealthy")
    assert not foreign.healthy


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"lora_rank": 8}, "healthy"),
        ({"learning_rate": 1e-4}, "healthy"),
        ({"output_dir": "o", "seed": 1}, "healthy"),
        ({"template": {"metadata": {}}}, "undecided"),
        ({}, "undecided"),
        ({"lora_rank": 8, "colour": "red"}, "unhealthy"),
        ({"colour": "red"}, "unhealthy"),
    ],
)
def test_check_judges_a_small_mapping(values: dict[str, Any], verdict: str) -> None:
    """Options alone are a configuration, however few; nothing at all is none; an unknown key is a finding either way."""
    assert doctor.check(values).verdict == verdict
