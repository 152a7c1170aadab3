"""The command that lists the samples of a batch: named where step, processes and configuration are known, with these values."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.report.model import Report

CONFIG = """model_name_or_path: m
stage: sft
do_train: true
dataset: one
template: qwen
output_dir: out
logging_steps: 1
"""
OOM = """Traceback (most recent call last):
  File "/env/transformers/trainer.py", line 1905, in training_step
    loss = self.compute_loss(model, inputs)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 18.20 GiB. GPU 0 has a total capacity of 79.15 GiB of which 9.10 GiB is free.
"""
START = "***** Running training *****\n  Num examples = 80\n  Total optimization steps = 40\n"


def record(step: int, loss: float | None) -> str:
    shown = "NaN" if loss is None else loss
    return f'{{"current_steps": {step}, "total_steps": 40, "loss": {shown}, "lr": 1e-05, "epoch": {step / 40}, "percentage": 2.5}}\n'


def run(folder: Path, losses: dict[int, float | None], *, world: int | None = 1, config: bool = True, text: str = "") -> Report:
    """A run's folder with trainer_log.jsonl, a console and a configuration, analysed."""
    (folder / "trainer_log.jsonl").write_text("".join(record(step, loss) for step, loss in losses.items()))
    rank = f"Process rank: 0, world size: {world}, device: cuda:0, distributed training: {world > 1}\n" if world else ""
    (folder / "console.log").write_text(rank + START + text)
    if config:
        (folder / "train run.yaml").write_text(CONFIG)
    return analyze(folder)


def commands(report: Report) -> list[list[str]]:
    """The commands of remedies that a person may follow, as a shell splits them; without what is not for this run."""
    remedies = [remedy for finding in report.findings for remedy in finding.remedies if remedy.status == "manual"]
    return [shlex.split(remedy.command) for remedy in remedies if remedy.command and "lfdoctor data" in remedy.command]


GOOD: dict[int, float | None] = {step: 2.0 - step / 40 for step in range(1, 25)}
NAN: dict[int, float | None] = dict.fromkeys(range(25, 30))


@pytest.mark.parametrize("world", [1, 4])
def test_a_nan_names_its_step_and_the_processes(tmp_path, world):
    """The first NaN is that of step 25; the name of the configuration is quoted for a shell."""
    report = run(tmp_path, GOOD | NAN, world=world)
    wanted = ["lfdoctor", "data", str(tmp_path / "train run.yaml"), "--step", "25", "--world-size", str(world)]
    assert report.cause == "nonfinite_cause_unknown"
    assert commands(report) == [wanted]


def test_a_nan_between_two_records_names_all_steps_of_them(tmp_path):
    """Logged every five steps: 21 to 25. Every twenty: too many to look through."""
    fives: dict[int, float | None] = {5: 2.0, 10: 1.9, 15: 1.8, 20: 1.7, 25: None, 30: None}
    assert [command[4] for command in commands(run(tmp_path, fives))] == ["21-25"]
    twenties: dict[int, float | None] = {20: 2.0, 40: 1.9, 60: None, 80: None}
    assert commands(run(tmp_path, twenties)) == []


@pytest.mark.parametrize("unknown", [{"world": None}, {"config": False}])
def test_what_is_not_known_names_no_command(tmp_path, unknown):
    """Without the number of processes or a configuration the command could name other samples."""
    report = run(tmp_path, GOOD | NAN, **unknown)
    assert report.cause == "nonfinite_cause_unknown"
    assert commands(report) == []


def test_a_long_batch_names_the_step_after_the_last_logged_one(tmp_path):
    """One process that logs every step failed in step 25."""
    report = run(tmp_path, GOOD, text=OOM)
    assert report.cause == "gpu_oom_long_sequence"
    assert commands(report) == [["lfdoctor", "data", str(tmp_path / "train run.yaml"), "--step", "25", "--world-size", "1"]]


@pytest.mark.parametrize(
    ("every", "world", "steps"), [(1, 2, "25-26"), (5, 1, "26-30"), (5, 2, "26-31"), (10, 1, "31-40"), (10, 4, "31-41")]
)
def test_records_that_leave_steps_out_and_other_processes_leave_several_steps(tmp_path, every, world, steps):
    """Up to the next record that did not come; another process may be a step further."""
    losses: dict[int, float | None] = dict.fromkeys(range(every, 31 if every == 10 else 26 if every == 5 else 25, every), 2.0)
    report = run(tmp_path, losses, world=world, text=OOM)
    assert report.cause == "gpu_oom_long_sequence"
    assert commands(report) == [["lfdoctor", "data", str(tmp_path / "train run.yaml"), "--step", steps, "--world-size", str(world)]]


@pytest.mark.parametrize(("every", "world"), [(1, None), (20, 1)])
def test_where_the_failed_step_is_in_doubt_no_command_is_named(tmp_path, every, world):
    """An unknown number of processes, or too many steps without a record."""
    losses: dict[int, float | None] = dict.fromkeys(range(every, 81, every), 2.0)
    report = run(tmp_path, losses, world=world, text=OOM)
    assert report.cause == "gpu_oom_long_sequence"
    assert commands(report) == []


def test_do_next_shows_the_command(tmp_path):
    """A person sees it in the terminal and on the page, ready to paste."""
    from doctor.cli.main import main

    run(tmp_path, GOOD | NAN)
    for kind in ("terminal", "html"):
        out = tmp_path.parent / f"{tmp_path.name}.{kind}"
        assert main(["analyze", str(tmp_path), "-f", kind, "-o", str(out)]) == 1
        page = out.read_text().replace("&#39;", "'")
        assert f"lfdoctor data '{tmp_path}/train run.yaml' --step 25 --world-size 1" in page.split("Evidence")[0]
