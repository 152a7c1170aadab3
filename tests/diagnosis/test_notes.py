"""A warning that is only a note: a slow run that is over, a spike that came back, overfitting whose best checkpoint was loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.report.model import FindingView, Report

SPIKED = [1.62, 1.58, 1.55, 1.53, 1.51, 1.50, 1.48, 1.47, 1.47, 1.45, 1.46, 1.44, 1.43, 1.44, 1.42, 1.41, 1.42, 1.40, 4.9]


def state(folder: Path, history: list[dict[str, Any]], **more: object) -> Path:
    """trainer_state.json of a run that reached its last step."""
    folder.mkdir(parents=True, exist_ok=True)
    last = max(record["step"] for record in history)
    text = json.dumps({"max_steps": last, "global_step": last, "log_history": history, **more})
    (folder / "trainer_state.json").write_text(text, encoding="utf-8")
    return folder


def losses(values: list[float]) -> list[dict[str, Any]]:
    return [{"step": step, "loss": value} for step, value in enumerate(values, 1)]


def finding(report: Report, rule: str) -> FindingView:
    return next(found for found in report.findings if found.rule == rule)


def test_a_spike_that_came_back_is_a_note_without_remedies(tmp_path: Path) -> None:
    report = analyze(state(tmp_path, losses([*SPIKED[:-1], 2.6, 1.43, 1.40, 1.41])))
    spike = finding(report, "stability/loss-spike")
    assert (report.verdict, report.cause, spike.severity, spike.remedies) == ("healthy", None, "note", [])
    assert "By step 21 it had come back" in spike.text


def test_a_large_spike_that_came_back_is_a_warning_without_a_patch(tmp_path: Path) -> None:
    """Three times the usual loss: worth knowing, nothing to change."""
    report = analyze(state(tmp_path, losses([*SPIKED, 1.43, 1.40, 1.41])))
    spike = finding(report, "stability/loss-spike")
    assert (report.verdict, spike.severity, report.patch) == ("unhealthy", "warning", None)
    assert "By step 21 it had come back" in spike.text


def test_a_spike_that_did_not_come_back_is_a_warning(tmp_path: Path) -> None:
    """One calm record is not enough, nor are records that are half way back."""
    report = analyze(state(tmp_path, losses([*SPIKED, 1.43, 3.1, 2.2, 2.1])))
    spike = finding(report, "stability/loss-spike")
    assert (report.verdict, spike.severity) == ("unhealthy", "warning")
    assert "has not come back" in spike.text
    assert spike.remedies


def test_one_lasting_spike_among_others_is_no_note(tmp_path: Path) -> None:
    """The first spike passes, the second does not: the finding of both is a warning."""
    calm = [1.40 + 0.01 * (step % 3) for step in range(30)]
    report = analyze(state(tmp_path, losses([*SPIKED, *calm, 9.5, 8.7, 8.9])))
    found = [found for found in report.findings if found.symptom in ("loss_spike", "divergence")]
    assert [found.severity for found in found if found.role == "root"] in (["warning"], ["error"])


def evaluated(seconds: float) -> list[dict[str, Any]]:
    """Four evaluations of this length in a training of 900 seconds."""
    out: list[dict[str, Any]] = []
    for step in range(1, 21):
        out.append({"step": step, "loss": 1.4})
        if step % 5 == 0:
            out.append({"step": step, "eval_loss": 1.3, "eval_runtime": seconds})
    return [*out, {"step": 20, "train_runtime": 900.0, "train_loss": 1.4}]


def test_a_slow_run_that_is_over_is_healthy_and_keeps_its_advice(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("stage: sft\nfinetuning_type: lora\neval_strategy: steps\neval_steps: 5\noutput_dir: saves/x\n")
    report = analyze(state(tmp_path, evaluated(70.0)))
    slow = finding(report, "speed/eval-too-often")
    assert (report.verdict, report.healthy, slow.severity, slow.role) == ("healthy", True, "note", "root")
    assert [remedy.id for remedy in slow.remedies if remedy.status == "apply"] == ["fewer-evals"]
    assert report.patch is not None
    assert report.patch.changes[0].key == "eval_steps"


def test_two_fifths_of_the_time_are_no_note(tmp_path: Path) -> None:
    report = analyze(state(tmp_path, evaluated(100.0)))
    assert (report.verdict, finding(report, "speed/eval-too-often").severity) == ("unhealthy", "warning")


def overfitted() -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for step, (loss, value) in enumerate([(1.5, 1.3), (1.0, 1.1), (0.8, 1.15), (0.6, 1.2), (0.4, 1.3), (0.3, 1.4)], 1):
        out += [{"step": 10 * step, "loss": loss}, {"step": 10 * step, "eval_loss": value, "eval_wer": 50 - step}]
    return out


def test_overfitting_names_the_best_checkpoint_that_exists(tmp_path: Path) -> None:
    """Step 20 was the best, but only 30 and 60 were saved."""
    for step in (30, 60):
        (tmp_path / f"checkpoint-{step}").mkdir(parents=True)
    found = finding(analyze(state(tmp_path, overfitted())), "stability/overfitting")
    assert found.severity == "warning"
    assert "`checkpoint-30` has the lowest eval loss: 1.15" in found.text


def test_overfitting_says_what_was_seen_when(tmp_path: Path) -> None:
    found = finding(analyze(state(tmp_path, overfitted())), "stability/overfitting")
    assert "lowest at step 20 (1.1) and had risen to 1.2 by step 40" in found.text
    assert "if one was saved" in found.text


def test_the_best_checkpoint_was_loaded(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("stage: sft\nfinetuning_type: lora\nload_best_model_at_end: true\noutput_dir: saves/x\n")
    report = analyze(state(tmp_path, overfitted(), best_model_checkpoint="saves/x/checkpoint-20", best_metric=1.1))
    found = finding(report, "stability/overfitting")
    assert (report.verdict, found.severity, found.remedies) == ("healthy", "note", [])
    assert "loaded the checkpoint of step 20" in found.text


@pytest.mark.parametrize(("step", "severity"), [(60, "note"), (30, "warning")])
def test_the_metric_that_the_run_chose_counts(tmp_path: Path, step: int, severity: str) -> None:
    """The eval loss rises, but the word error rate that the user asked for was best at the last evaluation."""
    report = analyze(state(tmp_path, overfitted(), best_model_checkpoint=f"out\\checkpoint-{step}", best_metric=44.0))
    assert finding(report, "stability/overfitting").severity == severity


def test_an_eval_loss_that_fell_again_is_no_overfitting(tmp_path: Path) -> None:
    history = [*overfitted(), {"step": 70, "loss": 0.2}, {"step": 70, "eval_loss": 1.0}]
    assert [found.rule for found in analyze(state(tmp_path, history)).findings] == []


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ([1e-9 * (step + 1) for step in range(80)], False),
        ([2e-7] * 80, True),
        ([2e-7 * (80 - step) / 80 for step in range(80)], False),
    ],
    ids=["still in the warm-up", "constant", "the end of a schedule"],
)
def test_a_rate_next_to_zero_is_told_only_if_it_is_the_highest(tmp_path: Path, rates: list[float], found: bool) -> None:
    history = [{"step": step, "loss": (0.65, 0.52, 0.8, 0.61)[step % 4], "learning_rate": rate} for step, rate in enumerate(rates, 1)]
    rules = [one.rule for one in analyze(state(tmp_path, history, max_steps=5000)).findings]
    assert ("stability/loss-flat-lr-too-low" in rules) is found


def test_a_pause_longer_than_the_training_is_between_two_runs(tmp_path: Path) -> None:
    """The log was continued a day later; train_runtime knows how long the training took."""
    rows = [
        {"current_steps": step, "total_steps": 40, "loss": 1.0, "elapsed_time": ("" if step < 20 else "1 day, ") + f"0:00:{step:02d}"}
        for step in range(1, 41)
    ]
    (tmp_path / "trainer_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "speed/training-stalled" in [found.rule for found in analyze(tmp_path).findings]
    (tmp_path / "train_results.json").write_text(json.dumps({"train_runtime": 60.0, "train_loss": 1.0}))
    assert "speed/training-stalled" not in [found.rule for found in analyze(tmp_path).findings]


FAILED_AFTER = """***** Running training *****
{'loss': 1.0, 'learning_rate': 1e-05, 'epoch': 1.0}
{'train_runtime': 60.0, 'train_loss': 1.0, 'epoch': 1.0}
***** train metrics *****
[rank2]: Traceback (most recent call last):
[rank2]:   File "/x/llamafactory/train/sft/workflow.py", line 90, in run_sft
[rank2]:     trainer.predict(dataset)
[rank2]: StageError: no such stage
srun: error: node1: task 0: Exited with exit code 1
"""


def test_the_exception_after_the_training_is_told_if_the_job_failed(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(FAILED_AFTER)
    report = analyze(tmp_path)
    assert report.verdict == "failed"
    assert "StageError: no such stage" in report.findings[0].title
    (tmp_path / "train.log").write_text(FAILED_AFTER.rpartition("srun")[0])
    assert analyze(tmp_path).run.status == "completed"


def test_a_sum_of_losses_is_told_without_the_accumulation(tmp_path: Path) -> None:
    """Losses that fall and stay above ln(vocabulary) are no means over tokens, if the model is a language model."""
    history = [{"step": 25 * place, "loss": loss} for place, loss in enumerate([56.8, 40.4, 39.0], 1)]
    assert analyze(state(tmp_path, history)).findings == []
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8}))
    found = finding(analyze(tmp_path), "stability/loss-summed-over-accumulation")
    assert "the logged number is no mean over tokens" in found.text


def test_the_loss_of_a_policy_is_no_measure(tmp_path: Path) -> None:
    """GRPO's loss grows with the KL divergence while the rewards rise: neither divergence nor spike nor overfitting."""
    history: list[dict[str, Any]] = []
    for step in range(1, 81):
        loss = 0.001 * step * (5 if step == 60 else 1)
        history.append({"step": step, "loss": loss, "reward": step / 80, "reward_std": 0.1, "kl": 0.02 * step, "learning_rate": 1e-6})
        if step % 10 == 0:
            history.append({"step": step, "eval_loss": 0.002 * step, "eval_reward_std": 0.1})
    assert analyze(state(tmp_path, history)).findings == []
    for record in history:
        record.pop("reward_std", None)
        record.pop("eval_reward_std", None)
    assert [found.symptom for found in analyze(state(tmp_path, history)).findings if found.role == "root"] == ["divergence"]


@pytest.mark.parametrize(("last", "severity"), [(0.4, "note"), (1.6, "warning")])
def test_a_warm_up_longer_than_a_run_that_learnt_is_a_note(tmp_path: Path, last: float, severity: str) -> None:
    """The rate was below the configured one, but the loss fell all the same."""
    history = [{"step": step, "loss": 2.0 + (last - 2.0) * step / 40, "learning_rate": 1e-7 * step} for step in range(1, 41)]
    assert finding(analyze(state(tmp_path, history)), "stability/warmup-longer-than-run").severity == severity
