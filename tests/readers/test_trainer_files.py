"""What the trainer itself writes into its folder: trainer_log, trainer_state, results, model card, adapter, in their real shapes."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doctor.core.events import Step
from doctor.diagnosis.pipeline import analyze
from doctor.readers import reading
from tests.readers.helpers import Seen, jsonl, log_record


def state(*history: dict, **more: object) -> str:
    return json.dumps({"global_step": history[-1]["step"], "max_steps": 8, "num_train_epochs": 2, "log_history": list(history)} | more)


def logged(step: int, **more: object) -> dict:
    return {"epoch": step / 4, "grad_norm": 1.0 + step, "learning_rate": 5e-05, "loss": 3.0 - step / 10, "step": step} | more


@pytest.mark.parametrize(
    "record",
    [
        log_record(3),
        log_record(3, lr=..., learning_rate=5e-05, eval_loss=None, predict_loss=None, reward=None),
        log_record(3, lr=..., learning_rate=5e-05, accuracy=0.5),
        log_record(3, throughput=1234.56, total_tokens=4096),
        log_record(3, throughput="1234.56"),
        log_record(3, vram_allocated=10.5, vram_reserved=11.25),
    ],
)
def test_every_key_set_of_trainer_log(tmp_path: Path, record: dict):
    """All versions' records give the same names: loss, learning_rate, epoch, and what more there is, as numbers."""
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(record))
    (step,) = Seen(tmp_path).steps
    assert (step.step, step.metrics["loss"], step.metrics["learning_rate"], step.seconds) == (3, 2.7, 5e-05, 3.0)
    renamed = {"accuracy": "rewards/accuracies", "vram_allocated": "vram_allocated_gib", "throughput": "throughput"}
    for old, new in renamed.items():
        assert (old in record) == (new in step.metrics)
    assert all(type(value) is float for value in step.metrics.values())


def test_a_step_that_the_trainer_wrote_is_exact(tmp_path: Path):
    """Only steps that a reader had to infer are inexact; the verdict on an early end rests on it."""
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(log_record(3), log_record(4)))
    assert [step.exact for step in Seen(tmp_path).steps] == [True, True]


def test_a_line_of_a_trainer_log_can_be_anything(tmp_path: Path):
    """NaN and Infinity are values; a torn last line, an empty one, NULs and a stranger cost themselves only."""
    lines = [
        '{"current_steps": 1, "total_steps": 8, "loss": NaN, "lr": 1e-05, "epoch": 0.1}',
        "",
        "\0\0\0",
        "not json",
        '["a list"]',
        '{"current_steps": 2, "total_steps": 8, "loss": Infinity, "lr": 1e-05, "epoch": 0.2}',
        '{"current_steps": 3, "total_steps": 8, "loss": 1.5, "epo{"current_steps": 4, "total_steps": 8, "loss": 1.25, "epoch": 0.4}',
        '{"current_steps": 5, "total_st',
    ]
    (tmp_path / "trainer_log.jsonl").write_text("\n".join(lines))
    seen = Seen(tmp_path)
    values = dict(seen.series("loss"))
    assert math.isnan(values[1])
    assert (values[2], values[4]) == (math.inf, 1.25)
    assert seen.problems


def test_days_in_elapsed_time(tmp_path: Path):
    """A run of several days keeps its clock."""
    records = log_record(1, elapsed_time="1 day, 0:08:23"), log_record(2, elapsed_time="12 days, 1:00:00")
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*records))
    assert [step.seconds for step in Seen(tmp_path).steps] == [86400 + 503, 12 * 86400 + 3600]


def test_a_resume_is_a_new_attempt(tmp_path: Path):
    """Steps that go back, or only the clock that goes back, begin another attempt; nothing of the first is lost."""
    back = [log_record(step) for step in (1, 2, 3)] + [log_record(step, loss=1.0, elapsed_time=f"0:00:0{step - 2}") for step in (3, 4)]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*back))
    assert [(step.attempt, step.step) for step in Seen(tmp_path).steps] == [(0, 1), (0, 2), (0, 3), (1, 3), (1, 4)]
    clock = [log_record(1, elapsed_time="0:10:00"), log_record(2, elapsed_time="0:20:00"), log_record(3, elapsed_time="0:00:10")]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*clock))
    assert [step.attempt for step in Seen(tmp_path).steps] == [0, 0, 1]


def test_two_writers_are_one_run(tmp_path: Path):
    """Two processes that write the same steps into one file, a little apart, are told once, as one attempt."""
    records = [
        record for step in range(1, 20) for record in (log_record(step), log_record(max(1, step - 1), elapsed_time=f"0:00:{step + 20}"))
    ]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*records))
    steps = Seen(tmp_path).steps
    assert [step.step for step in steps] == list(range(1, 20))
    assert {step.attempt for step in steps} == {0}


def test_evaluation_after_training_is_no_training(tmp_path: Path):
    """Progress records of an evaluation (another total, no loss) add no step and do not change the plan."""
    progress = [{"current_steps": step, "total_steps": 13, "percentage": 1.0, "elapsed_time": "0:00:01"} for step in (5, 10)]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*(log_record(step) for step in (1, 2, 8)), *progress))
    seen = Seen(tmp_path)
    assert [step.step for step in seen.steps] == [1, 2, 8]
    assert seen.facts["steps.planned"] == 8


def test_the_closing_record_says_completed(tmp_path: Path):
    """LLaMA-Factory's last record has no loss; a log without it is of a run that did not say it ended."""
    closing = log_record(8, loss=..., lr=...)
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(log_record(4), log_record(8), closing))
    assert Seen(tmp_path).facts["run.completed"] is True
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(log_record(4), log_record(7)))
    assert "run.completed" not in Seen(tmp_path).facts


def test_state_and_log_are_one_step_each(tmp_path: Path):
    """trainer_state adds grad_norm and evaluation to trainer_log's steps and is trusted for the digits; checkpoints add nothing again."""
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*(log_record(step, loss=round(3 - step / 10, 4)) for step in range(1, 9))))
    history = [logged(step, loss=3.00001 - step / 10) for step in range(1, 9)]
    history.insert(4, {"epoch": 1.0, "eval_loss": 2.5, "eval_runtime": 1.0, "step": 4})
    history.append({"epoch": 2.0, "train_runtime": 10.0, "train_loss": 2.5, "total_flos": 1e12, "train_steps_per_second": 0.8, "step": 8})
    (tmp_path / "trainer_state.json").write_text(state(*history))
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(state(*history[:4]))
    seen = Seen(tmp_path)
    assert [step.step for step in seen.steps] == list(range(1, 9))
    assert seen.steps[3].metrics["eval_loss"] == 2.5
    assert seen.steps[3].metrics["loss"] == 2.60001
    assert seen.steps[3].seconds == 4.0
    assert all("grad_norm" in step.metrics for step in seen.steps)
    assert (seen.facts["run.completed"], seen.facts["train.runtime_seconds"], seen.facts["epochs.planned"]) == (True, 10.0, 2.0)


def test_a_checkpoint_of_an_earlier_run_is_left_out(tmp_path: Path):
    """A checkpoint whose figures contradict the log was left by another run: its steps are not this run's."""
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*(log_record(step) for step in range(1, 6))))
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(state(*(logged(step, loss=9.0 - step) for step in range(1, 5))))
    steps = Seen(tmp_path).steps
    assert [(step.attempt, step.step) for step in steps] == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]
    assert not any("grad_norm" in step.metrics for step in steps)


def test_a_resumed_state_joins_the_attempt_that_it_tells_of(tmp_path: Path):
    """After a resume the state holds one history; its overlapping step goes to the attempt with the same loss."""
    log = [log_record(step) for step in (1, 2, 3, 4)] + [
        log_record(step, loss=1.0 - step / 100, elapsed_time="0:00:01") for step in (3, 4, 5)
    ]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*log))
    history = [logged(1), logged(2)] + [logged(step, loss=1.0 - step / 100) for step in (3, 4, 5)]
    (tmp_path / "trainer_state.json").write_text(state(*history))
    steps = Seen(tmp_path).steps
    assert [(step.attempt, step.step, "grad_norm" in step.metrics) for step in steps] == [
        (0, 1, True), (0, 2, True), (0, 3, False), (0, 4, False), (1, 3, True), (1, 4, True), (1, 5, True),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [40, 200, 350, 500])
def test_a_torn_state_gives_what_is_whole(tmp_path: Path, cut: int):
    """trainer_state.json is not written atomically: a torn one keeps the records before the tear."""
    whole = json.dumps({"max_steps": 8, "log_history": [logged(step) for step in range(1, 9)]}, indent=1)
    (tmp_path / "trainer_state.json").write_text(whole[:cut])
    seen = Seen(tmp_path)
    assert len(seen.steps) == whole[:cut].count("}")
    assert seen.problems


def test_v1_logs_are_read(tmp_path: Path):
    """The v1 trainer's records (step, grad_norm inside) give the same series."""
    records = [{"epoch": 0, "step": step, "loss": 2.0, "grad_norm": 1.5, "learning_rate": 1e-5, "total_steps": 10} for step in (1, 2)]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*records))
    assert Seen(tmp_path).series("grad_norm") == [(1, 1.5), (2, 1.5)]


def test_a_checkpoint_that_v1_only_began_is_not_the_last_one(tmp_path: Path):
    """It resumes from those with its mark only."""
    records = [{"epoch": 0, "step": step, "loss": 2.0, "learning_rate": 1e-5, "total_steps": 20} for step in range(1, 13)]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*records))
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "metadata.json").write_text(f'{{"global_step": {step}}}')
    (tmp_path / "checkpoint-5" / "CHECKPOINT_COMPLETE").touch()
    vitals = analyze(tmp_path).run.vitals
    assert vitals is not None
    assert vitals.checkpoint == "checkpoint-5"


def test_results_prove_completion_and_speed(tmp_path: Path):
    """train_results.json is written at the very end: completion and speed; its damage is a problem."""
    (tmp_path / "train_results.json").write_text(
        '{"epoch": 1.0, "train_loss": 2.5, "train_runtime": 12.5, "train_samples_per_second": 3.0}'
    )
    (tmp_path / "eval_results.json").write_text('{"eval_loss": ')
    seen = Seen(tmp_path)
    assert (seen.facts["run.completed"], seen.facts["train.runtime_seconds"], seen.facts["train.samples_per_second"]) == (True, 12.5, 3.0)
    assert any("damaged" in problem for problem in seen.problems)


def test_a_summary_of_wandb_tells_what_train_results_do(tmp_path: Path):
    """A run folder of W&B without its history still tells that training ended as planned, and how fast it was."""
    (tmp_path / "wandb-summary.json").write_text(
        '{"train/train_loss": 2.5, "train_runtime": 12.5, "train/train_steps_per_second": 0.8, "_wandb": {"runtime": 13}}'
    )
    seen = Seen(tmp_path)
    assert (seen.facts["run.completed"], seen.facts["train.runtime_seconds"], seen.facts["train.steps_per_second"]) == (True, 12.5, 0.8)


def test_an_adapter_and_a_card_give_back_the_options(tmp_path: Path):
    """What a finished LoRA run keeps of its configuration comes under LLaMA-Factory's names."""
    adapter = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["v_proj", "q_proj"],
               "base_model_name_or_path": "some/model", "use_dora": False}  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    card = """---\nbase_model: some/model\n---\n### Training hyperparameters\n\n- learning_rate: 5e-05\n- train_batch_size: 2
- gradient_accumulation_steps: 4\n- num_devices: 2\n- total_train_batch_size: 16\n- num_epochs: 3.0\n
### Framework versions\n\n- PEFT 0.18.1\n- Transformers 5.6.0\n- Pytorch 2.8.0+cu126\n"""
    (tmp_path / "README.md").write_text(card)
    seen = Seen(tmp_path)
    assert seen.config | {"lora_target": "q_proj,v_proj", "lora_rank": 16, "learning_rate": 5e-05} == seen.config
    assert (seen.config["per_device_train_batch_size"], seen.config["num_train_epochs"]) == (2, 3.0)
    assert (seen.facts["world_size"], seen.facts["batch.total"], seen.facts["versions.torch"]) == (2, 16, "2.8.0+cu126")


def test_no_step_is_told_without_a_figure(tmp_path: Path):
    """A predict folder's trainer_log holds progress only: no step events at all."""
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*(log_record(step, loss=..., lr=...) for step in (5, 10))))
    assert Seen(tmp_path).of(Step) == []


ODD = (
    {"lr": None}, {"eval_loss": 1.0}, {"loss": ..., "eval_loss": 1.5}, {"elapsed_time": "1 day, 0:00:05"}, {"elapsed_time": "soon"},
    {"elapsed_time": "0:01:7"}, {"elapsed_time": "0:00:00"}, {"total_steps": 9}, {"loss": float("nan")}, {"current_steps": 1},
    {"current_steps": 10**17}, {"reward": 0.5}, {"loss": ..., "lr": ..., "epoch": ...},
)  # fmt: skip
"""What a line may have that the lines around it have not."""
COUNTED = {"throughput": 9000.0, "total_tokens": 4096}


LINES = st.one_of(st.none(), st.sampled_from([*ODD, "torn", "", " "]))


@given(st.lists(LINES, min_size=8, max_size=60), st.booleans(), st.integers(100, 3000))
@example([None] * 8 + [" "], True, 3000)
@settings(max_examples=150, deadline=None)
def test_the_quick_way_tells_the_same(odd: list, counted: bool, block: int):
    """Stretches of usual lines are read at once: whatever stands between them, and wherever a block ends, all is told as line by line."""
    lines = []
    for place, strange in enumerate(odd, 1):
        if isinstance(strange, str):
            lines.append(strange)
            continue
        usual = {"elapsed_time": f"0:{place // 30:02d}:{2 * place % 60:02d}"} | (COUNTED if counted else {})
        lines.append(json.dumps(log_record(place, total=100, **(usual | (strange or {})))))
    slow = [line.replace('{"', '{"predict_loss": null, "', 1) for line in lines]
    seen = []
    for text in (lines, slow):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr("doctor.readers.trainer_log._BLOCK", block)
            path = Path(folder) / "trainer_log.jsonl"
            path.write_text("\n".join(text))
            seen.append([repr(event).replace(folder, "") for event in reading.read([path]).events()])
    assert seen[0] == seen[1]
