"""What real folders state in places of their own: framework, stage, method, last step, closing evaluation, harmless errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from doctor.config.options import effective
from doctor.diagnosis.pipeline import analyze, read
from doctor.readers.origins import is_llamafactory, stage_of
from tests.readers.helpers import Seen, scalar_event


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def log_lines(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


TRAINED = [{"current_steps": step, "total_steps": 324, "loss": 2.0 - step / 300, "epoch": step / 108} for step in (100, 200, 300)]
CARD = """---
library_name: {library}
tags:
- llama-factory
- {method}
- generated_from_trainer
---

### Training hyperparameters

- learning_rate: 5e-06
"""


def test_the_last_record_without_a_loss_counts(tmp_path: Path) -> None:
    """The run logs every 100 steps and ends at 324: the last record says only that."""
    text = log_lines(*TRAINED, {"current_steps": 324, "total_steps": 324, "epoch": 3.0, "percentage": 100.0})
    report = analyze(write(tmp_path / "trainer_log.jsonl", text))
    assert (report.run.steps.last, report.run.status, report.run.framework) == (324, "completed", "llamafactory")


def test_the_closing_evaluation_belongs_to_the_last_step(tmp_path: Path) -> None:
    """Older releases number its record by the evaluation's batches."""
    text = log_lines(*TRAINED, {"current_steps": 17, "total_steps": 17, "eval_loss": 0.9, "epoch": 3.0})
    seen = Seen(write(tmp_path / "trainer_log.jsonl", text))
    assert seen.series("eval_loss") == [(300, 0.9)]


def test_the_step_of_a_state_counts_where_nothing_was_logged_at_it(tmp_path: Path) -> None:
    state = {"global_step": 375, "max_steps": 375, "epoch": 3.0, "log_history": [{"step": 370, "loss": 0.5, "epoch": 2.96}]}
    assert analyze(write(tmp_path / "trainer_state.json", json.dumps(state))).run.steps.last == 375


TRAINING = "[INFO|trainer.py:2519] 2025-05-27 22:00:00,101 >> ***** Running training *****\n"


@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_the_model_card_names_framework_and_method(tmp_path: Path, method: str) -> None:
    write(tmp_path / "README.md", CARD.format(library="peft" if method == "lora" else "transformers", method=method))
    run = analyze(tmp_path).run
    assert (run.framework, run.finetuning_type) == ("llamafactory", method)


@pytest.mark.parametrize(("tag", "stage"), [("sft", "sft"), ("reward-trainer", "rm"), ("ppo", "ppo"), ("orpo", "dpo"), ("grpo", None)])
def test_the_model_card_of_trl_names_the_trainer(tmp_path: Path, tag: str, stage: str | None) -> None:
    """Its newer form has no list of hyper-parameters."""
    card = f"---\nbase_model: m\ntags:\n- generated_from_trainer\n- trl\n- {tag}\n---\n\nThis model was trained with X.\n\n"
    write(tmp_path / "README.md", card + "### Framework versions\n\n- TRL: 0.14.0\n- Transformers: 4.48.2\n")
    write(tmp_path / "trainer_state.json", json.dumps({"log_history": [{"step": 10, "loss": 0.69}], "global_step": 10, "max_steps": 10}))
    run = analyze(tmp_path).run
    assert (run.framework, run.stage) == ("trl", stage)
    assert read(tmp_path).facts["versions.trl"] == "0.14.0"


def test_options_of_another_program_are_not_judged_as_llamafactorys(tmp_path: Path) -> None:
    """transformers' own Trainer predicts without generating."""
    config = {
        "wandb_version": 1,
        "_wandb": {"value": {}},
        "do_predict": {"value": True},
        "do_train": {"value": True},
        "output_dir": {"value": "o"},
    }
    files = tmp_path / "wandb" / "run-20240101_000000-abcd1234" / "files"
    files.mkdir(parents=True)
    write(files / "config.yaml", yaml.safe_dump({**config, "max_length": {"value": 20}, "overwrite_output_dir": {"value": False}}))
    write(files / "wandb-summary.json", json.dumps({"train_runtime": 12.0, "train_loss": 0.5}))
    assert [finding.rule for finding in analyze(tmp_path).findings] == []
    write(files / "config.yaml", yaml.safe_dump({**config, "finetuning_type": {"value": "lora"}, "stage": {"value": "sft"}}))
    assert "config/predict-without-generate" in [finding.rule for finding in analyze(tmp_path).findings]


def test_wandbs_exit_code_of_a_finished_training_is_no_failure(tmp_path: Path) -> None:
    """A sweep's thread or a notebook around it ends with 1; without an exception the training is complete."""
    run = tmp_path / "wandb" / "run-20240101_000000-abcd1234"
    (run / "files").mkdir(parents=True)
    (run / "logs").mkdir()
    summary = {"train_runtime": 1712.4, "train_loss": 0.43, "train/global_step": 10360}
    write(run / "files" / "wandb-summary.json", json.dumps(summary))
    exit_line = "2025-06-24 10:29:10,790 INFO    Thread-11 (_run_job):1805 [wandb_run.py:_atexit_cleanup():2418] got exitcode: 1\n"
    write(run / "logs" / "debug.log", exit_line)
    assert analyze(tmp_path).run.status == "completed"


def test_all_parameters_trained_is_full_fine_tuning(tmp_path: Path) -> None:
    line = "trainable params: {} || all params: 7,615,616,512 || trainable%: {}\n"
    assert analyze(write(tmp_path / "train.log", line.format("7,615,616,512", "100.0000"))).run.finetuning_type == "full"
    assert analyze(write(tmp_path / "lora.log", line.format("20,185,088", "0.2644"))).run.finetuning_type is None


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("{'loss': 0.69, 'rewards/chosen': 0.01, 'rewards/rejected': 0.0}", "dpo"),
        ("{'loss': 0.5, 'rewards/chosen': 0.01, 'rewards/rejected': 0.0, 'kl': 0.2}", "kto"),
        ('{"current_steps": 5, "loss": 0.94, "reward": -2.39}', "ppo"),
        ('File "/x/src/llamafactory/train/rm/workflow.py", line 9, in run_rm', "rm"),
        ("[INFO|llmtuner.train.orpo.trainer]", "dpo"),
        ("{'loss': 2.0, 'learning_rate': 1e-4}", None),
    ],
)
def test_the_stage_by_modules_and_metrics(text: str, stage: str | None) -> None:
    assert stage_of(text) == stage


def test_the_stage_of_a_preference_run_without_config(tmp_path: Path) -> None:
    history = [{"step": 10, "loss": 0.69, "rewards/chosen": 0.01, "rewards/accuracies": 0.5}]
    assert analyze(write(tmp_path / "trainer_state.json", json.dumps({"log_history": history}))).run.stage == "dpo"


def test_only_llamafactorys_own_names_are_its_log() -> None:
    assert is_llamafactory("[INFO|2025-01-01] llamafactory.hparams.parser:143 >> Process rank")
    assert is_llamafactory("$ llamafactory-cli train x.yaml")
    assert not is_llamafactory("/home/me/my-llamafactory-notes/train.py")


def test_training_arguments_in_json(tmp_path: Path) -> None:
    """Old releases wrote JSON under this name, with the option's old name."""
    write(tmp_path / "training_args.bin", json.dumps({"learning_rate": 5e-05, "evaluation_strategy": "steps", "fp16": True}))
    assert Seen(tmp_path).config == {"learning_rate": 5e-05, "eval_strategy": "steps", "fp16": True}


def test_the_arguments_of_the_runs_own_folder_win(tmp_path: Path) -> None:
    """A checkpoint's copy is of an earlier start."""
    for folder, rate in ((tmp_path, 1.8e-5), (tmp_path / "checkpoint-9", 2e-5), (tmp_path / "checkpoint-10", 2.5e-5)):
        write(folder / "training_args.bin", json.dumps({"learning_rate": rate}))
    assert Seen(tmp_path).config["learning_rate"] == 1.8e-5
    (tmp_path / "training_args.bin").unlink()
    assert Seen(tmp_path).config["learning_rate"] == 2.5e-5


def test_the_error_stream_is_read_with_the_output(tmp_path: Path) -> None:
    write(tmp_path / "job_7.out", "***** Running training *****\n")
    write(tmp_path / "job_7.err", 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: wrong\n')
    for name in ("job_7.out", "job_7.err"):
        sources = {Path(source.path).name for source in analyze(tmp_path / name).run.sources}
        assert sources == {"job_7.out", "job_7.err"}


def test_the_web_uis_settings_under_another_name(tmp_path: Path) -> None:
    text = "top.model_name: Qwen\ntop.finetuning_type: lora\ntrain.learning_rate: 5e-5\ntrain.training_stage: DPO\n"
    write(tmp_path / "2024-05-01-12-00-00.yaml", text)
    config = Seen(tmp_path).config
    assert (config["stage"], config["learning_rate"], config["finetuning_type"]) == ("dpo", 5e-5, "lora")


def test_the_mean_loss_of_the_training(tmp_path: Path) -> None:
    """From results, from the state's last record and from the console."""
    write(tmp_path / "a" / "train_results.json", json.dumps({"train_loss": 0.5, "train_runtime": 9.0}))
    record = {"step": 5, "train_loss": 0.5, "train_runtime": 9.0}
    write(tmp_path / "b" / "trainer_state.json", json.dumps({"log_history": [record]}))
    write(tmp_path / "c" / "train.log", "{'train_runtime': 9.0, 'train_loss': 0.5, 'epoch': 1.0}\n")
    assert [Seen(tmp_path / name).facts["train.loss"] for name in "abc"] == [0.5, 0.5, 0.5]


HARMLESS = """--- Logging error ---
Traceback (most recent call last):
  File "/usr/lib/python3.11/logging/__init__.py", line 1110, in emit
    msg = self.format(record)
TypeError: not all arguments converted during string formatting
Call stack:
  File "/x/bin/llamafactory-cli", line 8, in <module>
    sys.exit(main())
Message: 'x'
Arguments: (1,)
"""
IGNORED = """Exception ignored in: <function Pool.__del__ at 0x7f>
Traceback (most recent call last):
  File "/usr/lib/python3.11/multiprocessing/pool.py", line 268, in __del__
    self._change_notifier.put(None)
OSError: [Errno 9] Bad file descriptor
"""
RAISED = """Traceback (most recent call last):
  File "/x/llamafactory/train/tuner.py", line 50, in run_exp
    run_sft()
ValueError: wrong
"""


@pytest.mark.parametrize("block", [HARMLESS, IGNORED], ids=["logging", "ignored"])
def test_what_python_itself_ignores_is_no_crash(tmp_path: Path, block: str) -> None:
    """And the exception after it still is one."""
    assert [crash.exception for crash in Seen(write(tmp_path / "a.log", block + "done\n")).crashes] == []
    crashes = Seen(write(tmp_path / "b.log", f"{block}Training completed.\n{RAISED}")).crashes
    assert [(crash.exception, crash.message) for crash in crashes] == [("ValueError", "wrong")]


def sample(*fields: str, loss: str = "{'loss': 1.5, 'learning_rate': 1e-05}") -> str:
    """A console of LLaMA-Factory with the sample that its data loader prints."""
    shown = "".join(f"{field}:\n[1, 2]\n" for field in fields)
    return f"[INFO|2025-01-26 10:42:35] llamafactory.data.loader:157 >> Loading dataset x.json...\ntraining example:\n{shown}{loss}\n"


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        (sample("input_ids", "inputs", "label_ids", "labels"), "sft"),
        (sample("input_ids", "inputs", "label_ids", "labels", loss="  train_loss   =     0.4"), "sft"),
        (sample("input_ids", "inputs"), "pt"),
        (sample("chosen_input_ids", "chosen_inputs", "rejected_input_ids"), "rm"),
        (sample("chosen_input_ids", "rejected_input_ids", loss="{'loss': 0.6, 'rewards/chosen': 0.1}"), "dpo"),
        (sample("input_ids", "inputs", "label_ids", "labels", loss=""), None),
        ("training example:\ninput_ids:\nlabel_ids:\n{'loss': 1.5}\n", None),
        ("FutureWarning: `tokenizer` is deprecated for `CustomSeq2SeqTrainer.__init__`", "sft"),
        ("FutureWarning: `tokenizer` is deprecated for `CustomKTOTrainer.__init__`", "kto"),
    ],
)
def test_the_stage_by_the_printed_sample_or_the_trainer(text: str, stage: str | None) -> None:
    """KTO and PPO print the same sample as SFT: without a plain loss nothing is said."""
    assert stage_of(text) == stage


@pytest.mark.parametrize(("names", "stage"), [(["rewards/chosen"], "dpo"), (["rewards/chosen", "kl"], "kto"), (["loss"], None)])
def test_the_stage_by_the_metrics_of_event_files(tmp_path: Path, names: list[str], stage: str | None) -> None:
    events = b"".join(scalar_event(step, f"train/{name}", 0.5) for step in (1, 2) for name in names)
    (tmp_path / "events.out.tfevents.1700000000.host.1.0").write_bytes(events)
    assert analyze(tmp_path).run.stage == stage


def test_the_example_scripts_of_transformers_are_not_llamafactory(tmp_path: Path) -> None:
    """Both print `Process rank`; only LLaMA-Factory's line ends with the compute dtype."""
    line = "WARNING - __main__ -   Process rank: 0, device: cuda:0, n_gpu: 1distributed training: True, 16-bits training: False\n"
    assert analyze(write(tmp_path / "a" / "train.log", line)).run.framework is None
    line = "Process rank: 0, device: cuda:0, n_gpu: 1, distributed training: True, compute dtype: torch.bfloat16\n"
    assert analyze(write(tmp_path / "b" / "train.log", line)).run.framework == "llamafactory"


def test_a_saved_models_config_is_read(tmp_path: Path) -> None:
    values = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "_name_or_path": "Qwen/Qwen2.5-7B"}
    write(tmp_path / "config.json", json.dumps(values))
    write(tmp_path / "trainer_state.json", json.dumps({"log_history": [{"step": 1, "loss": 1.0}]}))
    seen = Seen(tmp_path)
    assert (seen.facts["model.type"], seen.facts["model.task"], seen.facts["model.config"]) == ("qwen2", "CAUSAL_LM", values)
    assert analyze(tmp_path).run.model == "Qwen/Qwen2.5-7B"


def test_the_best_checkpoint_of_a_state(tmp_path: Path) -> None:
    history = [{"step": step, "eval_loss": 1.0} for step in (10, 20)]
    state = {"global_step": 20, "max_steps": 20, "best_model_checkpoint": "out/checkpoint-10", "best_metric": 0.9, "log_history": history}
    facts = Seen(write(tmp_path / "trainer_state.json", json.dumps(state))).facts
    assert {name: value for name, value in facts.items() if name.startswith("best.")} == {
        "best.checkpoint": "checkpoint-10", "best.metric": 0.9, "best.step": 10, "best.is_last": False,
    }  # fmt: skip


def test_the_step_of_a_state_without_logs(tmp_path: Path) -> None:
    """A short run logs nothing; its state says how far it came."""
    text = json.dumps({"global_step": 50, "max_steps": 50, "epoch": 0.5, "log_history": []})
    run = analyze(write(tmp_path / "trainer_state.json", text)).run
    assert (run.steps.last, run.status) == (50, "completed")


CRASHED = [
    {"type": "Session", "time": 1.0, "rank": 0},
    {"type": "Crash", "exception": "RuntimeError", "message": "of the old run", "time": 2.0},
]


def test_another_runs_journal_is_another_run(tmp_path: Path) -> None:
    own = [{"type": "Session", "time": 5.0, "rank": 0}, {"type": "Step", "step": 1, "time": 6.0, "metrics": {"loss": 1.0}}]
    write(tmp_path / "lfdoctor.jsonl", log_lines(*own))
    write(tmp_path / "lfdoctor-rank1.jsonl", log_lines({"type": "Session", "time": 5.0, "rank": 1}))
    old = write(tmp_path / "lfdoctor-before.jsonl", log_lines(*CRASHED))
    report = analyze(tmp_path)
    assert (report.run.status, [other.path for other in report.other_runs]) == ("unknown", [str(old)])
    assert analyze(old).run.status == "failed"


def test_an_old_name_of_an_option_counts_as_the_new_one() -> None:
    assert effective({"evaluation_strategy": "epoch"})["eval_strategy"] == "epoch"
    assert effective({"evaluation_strategy": "epoch", "eval_strategy": "steps"})["eval_strategy"] == "steps"


def test_what_processes_say_while_they_close_is_a_note(tmp_path: Path) -> None:
    """LLaMA-Factory warns when a process group cannot be destroyed; the model is saved by then."""
    metrics = "***** train metrics *****\n  epoch                    =       10.0\n  train_loss               =     0.2301\n"
    closing = (
        "[WARNING|2025-05-27 23:21:50] tuner.py:88 >> Failed to destroy process group: NCCL error, unhandled cuda error\n"
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 'out of memory'.\n"
    )
    steps = "".join(f"{{'loss': {2.0 - 0.01 * step}, 'learning_rate': 1e-4, 'epoch': {0.1 * step}}}\n" for step in range(1, 100))
    report = analyze(write(tmp_path / "running_log.txt", TRAINING + steps + metrics + closing))
    assert (report.run.status, report.verdict) == ("completed", "healthy")
    report = analyze(write(tmp_path / "other.txt", TRAINING + steps + closing + metrics))
    assert report.verdict != "healthy"


def test_git_is_no_training(tmp_path: Path) -> None:
    text = (
        "Cloning into 'LLaMA-Factory'...\nremote: Counting objects: 100% (120/120), done.\nReceiving objects: 100% (210/210), done.\n"
        "hint: Run 'git pull' first\nerror: failed to push some refs to 'origin'\n"
    )
    report = analyze(write(tmp_path / "console.log", text))
    assert (report.verdict, report.run.steps.last, report.findings) == ("undecided", None, [])


def test_the_web_uis_settings_are_no_yaml_to_patch(tmp_path: Path) -> None:
    text = "top.finetuning_type: lora\ntrain.learning_rate: 5e-5\ntrain.training_stage: Supervised Fine-Tuning\n"
    write(tmp_path / "settings.yaml", text)
    seen = Seen(tmp_path)
    assert (seen.facts["framework"], seen.reading.config_source) == ("llamafactory", None)


@pytest.mark.parametrize(
    ("output_dir", "stage"),
    [("saves/llama3-8b/lora/sft", "sft"), ("saves/x/full/pretrain", "pt"), ("saves\\x\\lora\\reward", "rm"), ("saves/sft", None)],
)
def test_the_stage_by_the_folders_of_the_examples(tmp_path: Path, output_dir: str, stage: str | None) -> None:
    """LLaMA-Factory's examples save to saves/MODEL/METHOD/STAGE; in other trainers' runs such a folder says nothing."""
    write(tmp_path / "training_args.bin", json.dumps({"output_dir": output_dir}))
    write(tmp_path / "trainer_state.json", json.dumps({"log_history": [{"step": 1, "loss": 1.0}]}))
    assert analyze(tmp_path).run.stage is None
    write(tmp_path / "trainer_log.jsonl", log_lines(*TRAINED))
    assert analyze(tmp_path).run.stage == stage


def test_the_command_in_wandbs_metadata(tmp_path: Path) -> None:
    """The arguments of the process, if they are LLaMA-Factory's; one option that other programs have too proves nothing."""
    words = ["--stage", "dpo", "--do_train", "--finetuning_type=lora", "--learning_rate", "5e-6", "--template", "llama3"]
    folder = tmp_path / "run-20240429_0101-abc"
    write(folder / "files" / "wandb-metadata.json", json.dumps({"args": words, "gpu_count": 1}))
    seen = Seen(folder)
    assert (seen.facts["framework"], seen.config) == (
        "llamafactory",
        {"stage": "dpo", "do_train": True, "finetuning_type": "lora", "learning_rate": 5e-6, "template": "llama3"},
    )
    write(folder / "files" / "wandb-metadata.json", json.dumps({"args": ["--dataset", "imagenet", "--lr", "0.1"], "gpu_count": 1}))
    other = Seen(folder)
    assert ("framework" in other.facts, other.config) == (False, {})
