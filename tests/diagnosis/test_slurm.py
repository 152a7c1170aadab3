"""How a job ended under Slurm: limits, cancels and dead nodes are told as what they are, and resumed where a checkpoint was written."""

from __future__ import annotations

from pathlib import Path

import pytest

import doctor

TRAINING = "***** Running training *****\n  Total optimization steps = 1,000\n"
STEP = "{'loss': 1.2, 'grad_norm': 0.9, 'learning_rate': 9e-05, 'epoch': 0.1}\n"
SAVE = "Saving model checkpoint to saves/x/checkpoint-100\n"
AT = "CANCELLED AT 2026-03-02T12:00:00"
STEP_CANCELLED = f"slurmstepd: error: *** STEP 123.0 ON gpu03 {AT} ***\n"
TORCHRUN = (
    'Traceback (most recent call last):\n  File "/opt/bin/torchrun", line 8, in <module>\n'
    "torch.distributed.elastic.multiprocessing.api.SignalException: Process 4021 got signal: 15\n"
)
UNKNOWN = 'Traceback (most recent call last):\n  File "/x/train.py", line 3, in f\nmylib.FooError: the frobnicator is bent\n'


def report(folder: Path, end: str, *, saved: bool = True) -> doctor.Report:
    (folder / "slurm-123.out").write_text(TRAINING + STEP * 5 + SAVE * saved + STEP * 5 + end, encoding="utf-8")
    return doctor.analyze(folder)


@pytest.mark.parametrize(
    ("end", "status", "rule", "said"),
    [
        (f"slurmstepd: error: *** STEP 123.0 ON gpu03 {AT} DUE TO TIME LIMIT ***\n", "interrupted", "stopped-from-outside", "TIME LIMIT"),
        (
            f"slurmstepd: error: *** JOB 123 ON gpu03 {AT} DUE TO TIME LIMIT ***\n" + TORCHRUN,
            "interrupted",
            "stopped-from-outside",
            "LIMIT",
        ),
        (f"slurmstepd: error: *** JOB 123 ON gpu03 {AT} DUE TO PREEMPTION ***\n", "interrupted", "stopped-from-outside", "PREEMPTION"),
        (f"slurmstepd: error: *** JOB 123 ON gpu03 {AT} by UID 1000 ***\n", "interrupted", "stopped-from-outside", "User 1000 cancelled"),
        (STEP_CANCELLED, "interrupted", "step-cancelled", "no failure of the training itself"),
        (f"slurmstepd: error: *** JOB 1 ON a {AT} DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***\n", "failed", "stopped-from-outside", "NODE"),
        ("srun: error: Node failure on gpu03\nsrun: error: gpu03: task 0: Killed\n", "failed", "stopped-from-outside", "Node failure"),
    ],
)
def test_a_stop_by_the_scheduler_or_a_user_is_no_failure_of_the_training(
    end: str, status: str, rule: str, said: str, tmp_path: Path
) -> None:
    """Interrupted, but for a node that died; the reason in the text; resumed from the checkpoint that the log told of."""
    told = report(tmp_path, end)
    first = told.findings[0]
    assert (told.run.status, first.rule, first.cause) == (status, f"distributed/{rule}", "stopped_from_outside")
    assert said in first.text
    resumed = next(remedy for remedy in first.remedies if remedy.id == "resume-explicitly")
    assert resumed.status == "apply"
    assert not any(remedy.id == "keep-the-terminal" and remedy.status != "not_applicable" for remedy in first.remedies)


@pytest.mark.parametrize("saved", [False, "only begun"])
def test_nothing_is_resumed_from_a_checkpoint_that_was_never_finished(saved: bool | str, tmp_path: Path) -> None:
    """Neither where none was saved, nor where the job ended while one was written."""
    end = f"slurmstepd: error: *** JOB 123 ON gpu03 {AT} DUE TO TIME LIMIT ***\n"
    assert report(tmp_path, (SAVE if saved else "") + end, saved=False).patch is None


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=123.0. Some of the step tasks have been OOM Killed.\n", "host_ram_oom"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.57 GiB.\n", "gpu_oom"),
    ],
)
def test_a_cancelled_step_gives_way_to_what_failed_before(before: str, cause: str, tmp_path: Path) -> None:
    """Srun cancels the step of a task that failed: that task's failure is the cause."""
    told = report(tmp_path, before + "srun: error: gpu03: task 0: Exited with exit code 1\n" + STEP_CANCELLED)
    assert told.run.status == "failed"
    assert told.findings[0].cause.startswith(cause)


def test_an_exception_that_no_rule_knows_comes_before_a_cancelled_step(tmp_path: Path) -> None:
    """The exception is the failure, the cancel its consequence."""
    told = report(tmp_path, UNKNOWN + "srun: error: gpu03: task 0: Exited with exit code 1\n" + STEP_CANCELLED)
    assert told.run.status == "failed"
    assert "FooError" in told.findings[0].title


@pytest.mark.parametrize(("order", "verdict"), [("after", "undecided"), ("before", "healthy")])
def test_a_training_whose_launcher_ended_its_ranks_afterwards_gets_no_tick(order: str, verdict: str, tmp_path: Path) -> None:
    """Torchrun closes its other processes only if one of them failed, here in the evaluation; before a new start it says nothing."""
    closing = (
        "W0526 11:55:29.603000 140 torch/distributed/elastic/multiprocessing/api.py:851] Sending process 92950 closing signal SIGTERM\n"
    )
    end = "***** train metrics *****\n  epoch                    =        1.0\n  train_loss               =     0.9921\n"
    log = TRAINING + STEP * 5 + end
    (tmp_path / "console.log").write_text(log + closing if order == "after" else closing + log, encoding="utf-8")
    assert doctor.analyze(tmp_path).verdict == verdict
