"""Consoles in the shapes that terminals, schedulers and launchers leave: records, facts, phases, prefixes, bars."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from doctor.core.events import Fact, ProcessEnd
from tests.readers.helpers import Seen, console, jsonl, log_record

HEADER = """[INFO|trainer.py:2519] 2026-03-02 10:00:05,100 >> ***** Running training *****
[INFO|trainer.py:2520] 2026-03-02 10:00:05,100 >>   Num examples = 1,600
[INFO|trainer.py:2521] 2026-03-02 10:00:05,100 >>   Num Epochs = 2
[INFO|trainer.py:2522] 2026-03-02 10:00:05,100 >>   Instantaneous batch size per device = 2
[INFO|trainer.py:2525] 2026-03-02 10:00:05,100 >>   Total train batch size (w. parallel, distributed & accumulation) = 16
[INFO|trainer.py:2526] 2026-03-02 10:00:05,100 >>   Gradient Accumulation steps = 4
[INFO|trainer.py:2527] 2026-03-02 10:00:05,100 >>   Total optimization steps = 200
[INFO|trainer.py:2528] 2026-03-02 10:00:05,101 >>   Number of trainable parameters = 20,971,520
"""


@pytest.mark.parametrize(
    "line",
    [
        "{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "{'loss': '1.25', 'grad_norm': '0.5', 'learning_rate': '5e-05', 'epoch': '0.1'}",
        "\x1b[32m{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}\x1b[0m",
        "[rank0]: {'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "0: {'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "worker-0: {'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "trainer-1  | {'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "2026-03-02T10:00:00.123Z {'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "(RayTrainWorker pid=77, ip=10.0.0.9) {'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "  5%|▌         | 10/200 [00:10<03:10,  1.00s/it]{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "\r  5%|▌     | 10/200 [00:10<03:10, 1.0s/it]\r          \r{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}",
        "{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}  5%|▌         | 10/200 [00:10<03:10,  1.00s/it]",
    ],
)
def test_a_dict_line_in_every_dress(tmp_path: Path, line: str):
    """Numbers or texts, colours, prefixes of ranks, hosts and containers, glued bars: the record is the same."""
    (step,) = console(tmp_path, line + "\n").steps
    assert step.metrics == {"loss": 1.25, "grad_norm": 0.5, "learning_rate": 5e-05, "epoch": 0.1}


@pytest.mark.parametrize(
    ("text", "value"), [("nan", math.nan), ("'nan'", math.nan), ("inf", math.inf), ("-inf", -math.inf), ("'8.8e+04'", 8.8e4)]
)
def test_values_that_are_no_plain_numbers(tmp_path: Path, text: str, value: float):
    """nan and inf, bare or quoted, are the figures that matter most."""
    (step,) = console(tmp_path, f"{{'loss': 0.0, 'grad_norm': {text}, 'learning_rate': 1e-05, 'epoch': 0.1}}\n").steps
    assert step.metrics["grad_norm"] == value or math.isnan(value) == math.isnan(step.metrics["grad_norm"])


def test_a_record_printed_twice_is_one(tmp_path: Path):
    """LLaMA-Factory's logger and the Trainer print each record, the latter with more digits; three steps stay three."""
    text = HEADER
    for place in (1, 2, 3):
        logger = f"03/12/2024 11:24:3{place} - INFO - llmtuner.extras.callbacks - "
        text += logger + f"{{'loss': 1.{place}000, 'learning_rate': 4.9999e-05, 'epoch': 0.{place}0}}\n"
        text += f"{{'loss': 1.{place}, 'grad_norm': nan, 'learning_rate': 4.99987e-05, 'epoch': 0.{place}}}\n"
    steps = console(tmp_path, text).steps
    assert [(step.step, step.metrics["loss"], step.metrics["learning_rate"]) for step in steps] == [
        (10, 1.1, 4.99987e-05), (20, 1.2, 4.99987e-05), (30, 1.3, 4.99987e-05),
    ]  # fmt: skip
    assert all("grad_norm" in step.metrics for step in steps)


def records(count: int, per_epoch: float, cadence: int, digits: int = 2) -> list[str]:
    return [
        f"{{'loss': {2 - i / 100:.2f}, 'learning_rate': 1e-05, 'epoch': {round(i * cadence / per_epoch, digits)}}}"
        for i in range(1, count + 1)
    ]


@pytest.mark.parametrize("cadence", [1, 2, 5, 10])
def test_steps_from_the_header_and_the_epochs(tmp_path: Path, cadence: int):
    """No record says its step: the planned steps, the epochs and the rounding of the console give the cadence."""
    text = HEADER + "".join(line + "\n" for line in records(15, 100, cadence))
    assert [step.step for step in console(tmp_path, text).steps] == [cadence * i for i in range(1, 16)]


def test_steps_from_the_configuration(tmp_path: Path):
    """logging_steps of the run's own YAML decides, and logging_first_step."""
    (tmp_path / "train.yaml").write_text("stage: sft\nmodel_name_or_path: m\nlogging_steps: 20\nlogging_first_step: true\n")
    (tmp_path / "console.log").write_text("".join(f"{{'loss': 2.{i}, 'epoch': 0.{i}}}\n" for i in range(1, 5)))
    assert [step.step for step in Seen(tmp_path).steps] == [1, 20, 40, 60]


def redrawn_bars(*logged: int) -> str:
    """The bar of 40 steps, cleared and drawn again after those that were logged."""
    out = "\r  0%|          | 0/100 [00:00<?, ?it/s]"
    for step in range(1, 41):
        out += f"\r {step}%|▌         | {step}/100 [00:{step % 60:02d}<01:00,  1.00s/it]"
        if step in logged:
            out += " " * 5 + "\r" + " " * 40 + f"\r\r {step}%|▌         | {step}/100 [00:{step % 60:02d}<01:00,  1.00s/it]"
    return out + "\n"


def test_steps_from_redrawn_bars(tmp_path: Path):
    """Standard output is buffered, so the records come late; where the bar was cleared and drawn again, something was printed."""
    text = redrawn_bars(10, 20, 30, 40) + "".join(f"{{'loss': 2.{i}, 'epoch': 0.{i}}}\n" for i in range(1, 5))
    assert [step.step for step in console(tmp_path, text).steps] == [10, 20, 30, 40]


def test_redrawn_bars_tell_that_the_first_step_was_logged_too(tmp_path: Path):
    """logging_first_step: the bar is drawn again after step 1, then at the cadence."""
    text = redrawn_bars(1, 10, 20, 30, 40) + "".join(f"{{'loss': 2.{i}, 'learning_rate': 1e-05}}\n" for i in range(1, 6))
    assert [step.step for step in console(tmp_path, text).steps] == [1, 10, 20, 30, 40]


def test_steps_agree_with_the_log_beside_them(tmp_path: Path):
    """A console without any hint is joined to trainer_log by its figures: grad_norm lands on the right steps."""
    log = [log_record(step, total=100, loss=3.0 - step / 100 + step % 3 / 7, epoch=step / 50) for step in range(10, 90, 10)]
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(*log))
    text = "".join(
        f"{{'loss': '{one['loss']:.4g}', 'grad_norm': '{one['current_steps'] / 8:.4g}', 'epoch': '{one['epoch']:.4g}'}}\n" for one in log
    )
    (tmp_path / "console.log").write_text(text)
    seen = Seen(tmp_path)
    assert seen.series("grad_norm") == [(step, step / 8) for step in range(10, 90, 10)]
    assert [value for _, value in seen.series("loss")] == [one["loss"] for one in log]


def test_evaluation_is_of_the_step_before(tmp_path: Path):
    """An eval record without a step belongs to the last logged one."""
    text = (
        HEADER + "\n".join([*records(2, 100, 10), "{'eval_loss': 1.5, 'eval_runtime': 3.1, 'epoch': 0.2}", *records(3, 100, 10)[2:]]) + "\n"
    )
    assert console(tmp_path, text).series("eval_loss") == [(20, 1.5)]


@pytest.mark.parametrize(
    ("line", "step", "loss"),
    [
        ('{"loss": 1.43, "grad_norm": NaN, "global_step/max_steps": "8270/11043", "percentage": "74.89%"}', 8270, 1.43),
        ('{"current_steps": 30, "total_steps": 90, "loss": 1.5, "lr": 1e-05, "epoch": 0.5, "elapsed_time": "0:01:00"}', 30, 1.5),
        (" iteration      30/    1000 | learning rate: 5.6E-05 | lm loss: 4.07E+01 | loss scale: 1024.0 | grad norm: 1.0 |", 30, 40.7),
        ("step:30/300, tokens seen:9.96M, avg_train_loss:2.3809 time:48/10s step_avg:34ms", 30, 2.3809),
        ("[INFO|2026-01-02 03:04:05] llamafactory.v1.utils.callbacks.logging_callback:31 >> epoch: 0, step: 30, loss: 2.1234"
         ", grad_norm: 1.2, learning_rate: 1e-05", 30, 2.1234),
        ("{'loss': 0.1, 'reward': -0.2, 'learning_rate': 1e-05, 'epoch': 0.0, 'step': 30}", 30, 0.1),
    ],
)  # fmt: skip
def test_records_that_print_their_step(tmp_path: Path, line: str, step: int, loss: float):
    """swift's and pasted JSON, Megatron, nanoGPT-like and the v1 trainer: own step, own loss."""
    assert console(tmp_path, line + "\n").series("loss") == [(step, loss)]


MEGATRON = (
    " [2026-03-02 10:00:{second:02d}] iteration {step:8d}/     200 | consumed samples: {samples:12d} | elapsed time per iteration (ms):"
    " 812.4 | throughput per GPU (TFLOP/s/GPU): 241.3 | learning rate: 1.000000E-05 | global batch size:    16 |{loss} loss scale: 1.0 |"
    " grad norm: 1.175 | number of skipped iterations: {skipped:3d} | number of nan iterations: {nan:3d} |\n"
)
"""As Megatron-LM's training.py and Megatron Bridge's train_utils.py print it."""


def megatron(step: int, loss: str, skipped: int = 0, nan: int = 0) -> str:
    return MEGATRON.format(second=step // 10, step=step, samples=16 * step, loss=loss, skipped=skipped, nan=nan)


def test_megatrons_training_log(tmp_path: Path):
    """Training, evaluation, checkpoints, pace and the end; what it counts is no metric."""
    text = (
        megatron(10, " lm loss: 2.838767E+00 |")
        + megatron(20, " lm loss: 2.687933E+00 |")
        + " validation loss at iteration 20 on validation set | lm loss value: 1.800000E+00 | lm loss PPL: 6.049647E+00 | \n"
        + "  successfully saved checkpoint from iteration      20 to saves/run [ t 1/1, p 1/1 ]\n"
        + "[after training is done] datetime: 2026-03-02 10:03:00 \n"
    )
    seen = console(tmp_path, text)
    assert {name: seen.series(name) for name in {name for step in seen.steps for name in step.metrics}} == {
        "loss": [(10, 2.838767), (20, 2.687933)], "eval_loss": [(20, 1.8)], "learning_rate": [(10, 1e-05), (20, 1e-05)],
        "grad_norm": [(10, 1.175), (20, 1.175)], "loss scale": [(10, 1.0), (20, 1.0)], "step_seconds": [(10, 0.8124), (20, 0.8124)],
    }  # fmt: skip
    assert {"steps.planned": 200, "checkpoint.saved": 20, "run.completed": True}.items() <= seen.facts.items()
    assert seen.steps[1].time - seen.steps[0].time == 1


@pytest.mark.parametrize(
    ("loss", "skipped", "nan", "read"),
    [
        (" lm loss: 2.0E+00 |", 1, 0, [2.0]),  # the mean of the steps that were made
        (" lm loss: 0.000000E+00 |", 10, 0, []),  # all skipped: the mean of nothing
        ("", 0, 0, [math.nan]),  # a loss that is not >= 0 is left out
        (" lm loss: 2.0E+00 |", 1, 1, [math.nan]),
    ],
)
def test_what_megatron_leaves_out(tmp_path: Path, loss: str, skipped: int, nan: int, read: list[float]):
    """A NaN is not printed as one; skipped steps print a loss of 0."""
    assert repr([value for _, value in console(tmp_path, megatron(10, loss, skipped, nan)).series("loss")]) == repr(read)


@pytest.mark.parametrize(
    ("more", "read"),
    [
        ("", {}),
        (
            " mtp_1 loss: 3.5E+00 | params norm: 12.5 | data loading (ms): 3.5 |",
            {"mtp_1 loss": 3.5, "params norm": 12.5, "data loading (ms)": 3.5},
        ),
        (" num zeros: 7 [of all] | params norm: 12.5 |", {"num zeros": 7.0, "params norm": 12.5}),  # a value with a word behind it
        (" params norm: 12.5 num zeros: 7 |", {"num zeros": 7.0, "params norm": 12.5}),  # no bar between
        (" state: resumed | params norm: 12.5 |", {"params norm": 12.5}),  # no number
    ],
)
def test_what_else_stands_between_megatrons_bars(tmp_path: Path, more: str, read: dict[str, float]):
    """Whatever a fork adds to the line, the other numbers of it are read."""
    (step,) = console(tmp_path, megatron(10, f" lm loss: 2.0E+00 |{more}")).steps
    usual = {"loss": 2.0, "learning_rate": 1e-05, "loss scale": 1.0, "grad_norm": 1.175, "step_seconds": 0.8124}
    assert step.metrics == usual | read


def test_the_v1_trainers_console(tmp_path: Path):
    """Lines of a real run of LLaMA-Factory 0.9.5 with USE_V1=1 that resumed, and of its loader for a quantised model."""
    said = "[INFO|2026-11-30 19:48:{second}] llamafactory.v1.{module}:107 >> {text}\n"
    lines = [
        ("05", "accelerator.interface", "DistributedInterface initialized: DistributedInterface(strategy=DistributedStrategy("
         "mp_replicate_size=1, mp_shard_size=4, dp_size=2, cp_size=2)), is_distributed=True, current_device=cuda, "),
        ("06", "core.model_engine", "Using attention implementation: flash_attention_2."),
        ("07", "plugins.model_plugins.quantization", "Loading 4-bit quantized model."),
        ("08", "plugins.model_plugins.peft", "Fine-tuning method: LoRA"),
        ("09", "core.utils.checkpoint", "Auto-detected latest checkpoint: out/checkpoint-10"),
        ("44", "utils.callbacks.logging_callback",
         "epoch: 0, step: 11, loss: 4.4587, grad_norm: 2.4214, learning_rate: 0.0005, total_steps: 12"),
        ("48", "utils.callbacks.logging_callback",
         "epoch: 0, step: 12, loss: 4.3796, grad_norm: 2.4404, learning_rate: 0.0005, total_steps: 12"),
        ("49", "core.utils.checkpoint", "Checkpoint saved to out/checkpoint-12"),
    ]  # fmt: skip
    text = "".join(said.format(second=second, module=module, text=words) for second, module, words in lines)
    seen = console(tmp_path, text)
    assert {name for step in seen.steps for name in step.metrics} == {"epoch", "loss", "grad_norm", "learning_rate"}
    assert seen.series("loss") == [(11, 4.4587), (12, 4.3796)]
    expected = {"framework": "llamafactory", "llamafactory.trainer": "v1", "world_size": 4, "device": "cuda", "attention": "fa2",
                "quantized.bits": 4, "finetuning_method": "lora", "resumed_from": "out/checkpoint-10", "steps.planned": 12,
                "checkpoint.saved": 12}  # fmt: skip
    assert expected.items() <= seen.facts.items()
    assert "run.completed" not in seen.facts
    end = said.format(second="50", module="core.base_trainer", text="Model saved to out")
    assert console(tmp_path, text + end).facts["run.completed"] is True


def test_two_trainings_in_one_console_are_two_attempts(tmp_path: Path):
    """A second training begins at its own first step; its lines and steps are of another attempt, and completion is forgotten."""
    first = HEADER + "\n".join(records(3, 100, 10)) + "\n{'train_runtime': 9.5, 'train_loss': 1.9, 'epoch': 2.0}\n"
    seen = console(
        tmp_path, first + HEADER + "\n".join(line.replace("'loss': 1", "'loss': 7") for line in records(2, 100, 10)) + "\nfarewell\n"
    )
    assert [(step.attempt, step.step) for step in seen.steps] == [(0, 10), (0, 20), (0, 30), (1, 10), (1, 20)]
    assert seen.lines[-1].attempt == 1
    assert seen.facts["run.completed"] is False


def test_facts_of_a_header_and_of_llamafactory(tmp_path: Path):
    """What the run says of itself is known under fixed names."""
    text = (
        HEADER
        + """[INFO|2026-03-02 09:59:00] llamafactory.launcher:144 >> Initializing 8 distributed tasks at: 127.0.0.1:29500
[INFO|2026-03-02 09:59:30] llamafactory.hparams.parser:523 >> Process rank: 3, world size: 8, device: cuda:3, \
distributed training: True, compute dtype: torch.bfloat16
[INFO|2026-03-02 09:59:50] llamafactory.model.model_utils.quantization:144 >> Quantizing model to 4 bit with bitsandbytes.
[INFO|2026-03-02 09:59:55] llamafactory.model.model_utils.checkpointing:144 >> Gradient checkpointing enabled.
[INFO|2026-03-02 09:59:55] llamafactory.model.model_utils.attention:144 >> Using torch SDPA for faster training and inference.
[INFO|2026-03-02 09:59:56] llamafactory.model.adapter:144 >> Fine-tuning method: LoRA
[INFO|2026-03-02 09:59:57] llamafactory.model.loader:144 >> trainable params: 20,971,520 || all params: 8,051,232,768 || trainable%: 0.2605
"""
    )
    facts = console(tmp_path, text).facts
    expected = {"world_size": 8, "device": "cuda", "compute_dtype": "bfloat16", "quantized.bits": 4, "gradient_checkpointing": True,
                "attention": "sdpa", "finetuning_method": "lora", "model.trainable_params": 20971520, "model.params": 8051232768,
                "examples.num": 1600, "epochs.planned": 2.0, "batch.per_device": 2, "batch.total": 16, "batch.accumulation": 4,
                "steps.planned": 200, "run.started_training": True, "text": True, "gpu.count": 8}  # fmt: skip
    assert expected.items() <= facts.items()


@pytest.mark.parametrize("line", ["Process rank: 0, device: cuda:0, n_gpu: 1, distributed training: True, compute dtype: torch.float16"])
def test_the_older_process_line(tmp_path: Path, line: str):
    """Before 0.9.2 the line had no world size; under distributed training it stays unknown."""
    facts = console(tmp_path, f"03/12/2024 11:24:33 - INFO - llamafactory.hparams.parser - {line}\n").facts
    assert (facts["device"], facts["compute_dtype"], "world_size" in facts) == ("cuda", "float16", False)


LOADER = "[INFO|2026-03-02 09:59:31] llamafactory.model.loader:144 >> Failed to load processor: "


@pytest.mark.parametrize(
    ("reason", "package"),
    [
        ("No module named 'torchaudio'", "torchaudio"),
        (
            "This modeling file requires the following packages that were not found in your environment: librosa",
            "librosa",
        ),
        ("MiniCPMVProcessor requires the PIL library but it was not found in your environment", "PIL"),
        ("Unrecognized image processor in saves/merged", None),
    ],
)
def test_why_the_processor_was_not_loaded(tmp_path: Path, reason: str, package: str | None):
    """LLaMA-Factory from 0.9.4 on writes the exception's text as information and goes on; a missing package has its name in it."""
    facts = console(tmp_path, f"{LOADER}{reason}.\n").facts
    assert facts["processor.error"] == reason
    assert facts.get("processor.package") == package


def test_a_printed_model_configuration(tmp_path: Path):
    """transformers prints the model's configuration over many lines; it is known as one mapping."""
    text = "[INFO|configuration_utils.py:765] 2026-03-02 09:59:31,100 >> Model config Qwen3Config {\n" + '  "hidden_size": 2560,\n' \
        + '  "model_type": "qwen3",\n  "num_hidden_layers": 36,\n  "rope_parameters": {\n    "theta": 10\n  }\n}\n\nnext\n'  # fmt: skip
    facts = console(tmp_path, text).facts
    assert facts["model.config"]["num_hidden_layers"] == 36
    assert facts["model.type"] == "qwen3"


def test_the_processes_of_the_tokenisation(tmp_path: Path):
    """datasets prints how many processes work; a bar is cut when one of them dies."""
    text = "Running tokenizer on dataset (num_proc=16):  34%|███       | 171/500 [01:22<02:31, 21.4 examples/s]\nRuntimeError: no\n"
    assert console(tmp_path, text).facts["preprocessing.workers"] == 16


def test_a_model_that_is_printed_again_and_again(tmp_path: Path):
    """Every checkpoint prints the model: each change of it is told, repeats are not, and the lines after it keep their numbers."""
    head = "[INFO|configuration_utils.py:765] 2026-03-02 09:59:31,100 >> Model config Qwen3Config {\n"
    small, large = (f'{head}  "hidden_size": {size},\n  "num_hidden_layers": 2\n}}\n' for size in (64, 128))
    text = small * 5 + large + small * 4 + "Traceback (most recent call last):\n" + small.splitlines()[1] + "\nValueError: no\n"
    seen = console(tmp_path, text)
    models = [(event.where.line, event.value["hidden_size"]) for event in seen.of(Fact) if event.name == "model.config"]
    assert models == [(4, 64), (24, 128), (28, 64)]
    assert [crash.where.line for crash in seen.crashes] == [43]


def test_phases_follow_the_markers(tmp_path: Path):
    """A line's phase is that of the last marker before it; before any marker it is unknown."""
    text = f"""hello 0
[INFO|2026-03-02 09:59:31] llamafactory.data.loader:144 >> Loading dataset toy.json...
hello 1
Loading checkpoint shards:  50%|█████     | 2/4 [00:05<00:05,  2.50s/it]
hello 2
{HEADER}hello 3
[INFO|trainer.py:4309] 2026-03-02 10:00:15,100 >> ***** Running Evaluation *****
hello 4
{{'eval_loss': 1.5, 'epoch': 0.2}}
hello 5
[INFO|trainer.py:3984] 2026-03-02 10:01:15,100 >> Saving model checkpoint to saves/x/checkpoint-20
hello 6
{{'loss': 1.5, 'epoch': 0.3}}
hello 7
[INFO|trainer.py:2800] 2026-03-02 11:01:15,100 >> Training completed. Do not forget to share your model on huggingface.co/models =)
hello 8
"""
    phases = [line.phase for line in console(tmp_path, text).lines if line.text.startswith("hello")]
    assert phases == [None, "tokenise", "load", "train", "eval", "train", "save", "train", "end"]


TORCHRUN = """E1123 11:46:03.589 3445 torch/distributed/elastic/api.py:874] failed (exitcode: 1) local_rank: 1 (pid: 3449) of binary: python
Traceback (most recent call last):
  File "/opt/bin/torchrun", line 8, in <module>
    sys.exit(main())
  File "/opt/lib/torch/distributed/launcher/api.py", line 138, in __call__
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:{trailing}
============================================================
/opt/llamafactory/launcher.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-03-02_11:46:03
  host      : localhost
  rank      : 8 (local_rank: 0)
  exitcode  : -15 (pid: 3448)  (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 3448
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-03-02_11:46:03
  host      : localhost
  rank      : 9 (local_rank: 1)
  exitcode  : {code} (pid: 3449)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""


@pytest.mark.parametrize("code", [1, -9])
def test_torchruns_failure_block(tmp_path: Path, code: int):
    """The block tells each rank's end once, the first failure marked; the launcher's own line is not told again."""
    seen = console(tmp_path, TORCHRUN.format(trailing=" ", code=code) + "after\n")
    assert [(end.rank, end.local_rank, end.code, end.signal, end.first) for end in seen.ends] == [
        (8, 0, -15, 15, False), (9, 1, code, 9 if code == -9 else None, True),
    ]  # fmt: skip
    assert [crash.exception.rpartition(".")[2] for crash in seen.crashes] == ["ChildFailedError"]
    assert seen.lines[-1].text == "after"


def test_the_old_failure_table(tmp_path: Path):
    """PyTorch 1.9 printed the root cause first, in another table."""
    text = """***************************************
            train.py FAILED
=======================================
Root Cause:
[0]:
  time: 2021-07-21_11:05:13
  rank: 2 (local_rank: 2)
  exitcode: -9 (pid: 1234)
  error_file: <N/A>
  msg: "Signal 9 (SIGKILL) received by PID 1234"
=======================================
Other Failures:
[1]:
  time: 2021-07-21_11:05:13
  rank: 1 (local_rank: 1)
  exitcode: 1 (pid: 1233)
***************************************
"""
    assert [(end.rank, end.code, end.first) for end in console(tmp_path, text).ends] == [(2, -9, True), (1, 1, False)]


@pytest.mark.parametrize(
    ("line", "code", "signal", "reporter"),
    [
        ("E1 api.py:874] failed (exitcode: -9) local_rank: 1 (pid: 9) of binary: /opt/python", -9, 9, "torchrun"),
        ("[2026-03-02 10:00:00,000] [ERROR] [launch.py:325:sigkill_handler] ['/opt/python', '-u', 'train.py', '--local_rank=3'] "
         "exits with return code = -9", -9, 9, "deepspeed"),
        ("Killed", -9, 9, "shell"),
        ("run.sh: line 12:  4242 Killed                  llamafactory-cli train x.yaml", -9, 9, "shell"),
        ("Segmentation fault (core dumped)", -11, 11, "shell"),
        ("srun: error: node07: task 3: Out Of Memory", -9, 9, "slurm"),
        ("srun: error: node07: task 0: Exited with exit code 1", 1, None, "slurm"),
        ("command terminated with exit code 137", 137, 9, "shell"),
    ],
)  # fmt: skip
def test_ends_told_in_one_line(tmp_path: Path, line: str, code: int, signal: int | None, reporter: str):
    """Launchers, shells and schedulers say how a process ended, each in its words."""
    (end,) = console(tmp_path, f"before\n{line}\nafter\n").of(ProcessEnd)
    assert (end.code, end.signal, end.reporter) == (code, signal, reporter)


def test_prose_about_killing_is_no_end(tmp_path: Path):
    """A sentence with the word in it, and a training example, are lines and nothing else."""
    text = "The hero was Killed in the second act, which took the audience by surprise and made the critics furious about the ending.\n"
    assert console(tmp_path, text + "In the story two were Killed by wolves\n").ends == []


def test_lines_keep_level_rank_time_and_number(tmp_path: Path):
    """A line knows its severity, whose it is, when it was written and where it stands."""
    text = "first\r\n[rank3]: [WARNING|2026-03-02 10:00:00] llamafactory.data.loader:149 >> Cannot find it.\r\n"
    line = console(tmp_path, text).lines[-1]
    assert (line.text.split(" >> ")[1], line.level, line.rank, line.where.line, line.time) == (
        "Cannot find it.",
        "WARNING",
        3,
        2,
        1772445600.0,
    )


def test_a_bar_without_end_is_read_in_bounded_memory(tmp_path: Path):
    """Megabytes of bars without a newline neither pile up nor hide what is glued to their end."""
    bars = "".join(f"\r  5%|▌         | {step}/900000 [00:10<03:10,  1.00s/it]" for step in range(60000))
    seen = console(tmp_path, bars + 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nMemoryError\n')
    assert (seen.crashes[0].exception, seen.crashes[0].where.line) == ("MemoryError", 4)


def test_a_pair_of_slurm_files_is_one_run(tmp_path: Path):
    """Losses in .out, header and traceback in .err: steps come out right, output before error."""
    (tmp_path / "job_7.err").write_text(
        HEADER + 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: bad\n'
    )
    (tmp_path / "job_7.out").write_text("starting\n" + "\n".join(records(4, 100, 10)) + "\n")
    seen = Seen(tmp_path)
    assert [step.step for step in seen.steps] == [10, 20, 30, 40]
    assert [Path(event.where.file).suffix for event in (seen.lines[0], seen.crashes[0])] == [".out", ".err"]
    assert seen.events.index(seen.lines[0]) < seen.events.index(seen.crashes[0])


@pytest.mark.parametrize("nuls", [10, 5000, 3 << 20])
def test_a_log_that_was_cut_to_nothing_while_it_was_written(tmp_path: Path, nuls: int):
    """It begins with NULs up to where its writer stood (copy-truncate rotation), and may hold more of them later."""
    crash = b'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: no\n\n'
    seen = console(tmp_path, b"\0" * nuls + crash + b"\0" * nuls + b"Killed\n", name="train.log")
    assert [crash.exception for crash in seen.crashes] == ["ValueError"]
    assert [end.signal for end in seen.ends] == [9]
    assert seen.reading.sources[0].kind == "console"


@pytest.mark.parametrize(("blanks", "marked"), [(9, False), (10, True), (40, True)])
def test_a_cleared_bar_marks_the_step_of_a_buffered_record(tmp_path: Path, blanks: int, marked: bool):
    """tqdm clears its bar with at least ten blanks before something is printed: the step of the bar is the step of a later record."""
    bar = "\r{0}%|█   | {0}/40 [00:10<03:10,  1.00s/it]"
    redrawn = "\r" + " " * blanks + bar
    bars = "".join(bar.format(step) + (redrawn.format(step) if step % 5 == 0 else "") for step in range(41))
    records = "".join(f"{{'loss': {9 - place}.0, 'learning_rate': 1e-05}}\n" for place in range(8))
    steps = [step for step, _ in console(tmp_path, f"{bars}\n{records}").series("loss")]
    assert (steps == [5, 10, 15, 20, 25, 30, 35, 40]) is marked


@pytest.mark.parametrize(("lines", "complete"), [(7, False), (8, True)])
def test_a_silent_ranks_message_is_complete_after_eight_lines(tmp_path: Path, lines: int, complete: bool):
    """Until then the next line of that rank still belongs to its message."""
    text = '[rank1]: Traceback (most recent call last):\n[rank1]:   File "a.py", line 1, in f\n[rank1]: ValueError: first\n'
    text += "".join(f"[rank0]: {number}\n" for number in range(lines - 1)) + "[rank0]: a loss of power\n[rank1]: second\n"
    (crash,) = console(tmp_path, text).crashes
    assert crash.message == ("first" if complete else "first\nsecond")
