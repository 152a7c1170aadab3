"""The registry of facts: name, type, unit and source of everything that is known about a run as a whole.

Readers, the live callback and the pre-flight checks set facts (`doctor.core.events.Fact`); rules, detectors and the memory estimate read
them. A name that is set or asked for anywhere stands here. A `*` stands for one part of a name that is free (`versions.*`, `env.*`).
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from typing import Literal, NamedTuple

Type = Literal["bool", "int", "float", "str", "dict", "list"]

TOKEN_COUNTERS = ("num_input_tokens_seen", "total_tokens")
"""Metrics that count the tokens since the start of the training, summed over the ranks, most trusted first.

`num_input_tokens_seen` is the Trainer's own counter (transformers TrainerState) and stands in every log of every source. `total_tokens` is
LLaMA-Factory's copy of it (train/callbacks.py LogCallback), in trainer_log.jsonl only. They differ only where files of two attempts are
joined; the Trainer's counter then is the one that belongs to the step.
"""


class FactInfo(NamedTuple):
    """What a fact holds and who sets it. `unit` is empty for texts, flags and counts."""

    type: Type
    unit: str
    set_by: str


FACTS: dict[str, FactInfo] = {
    # machine and environment
    "world_size": FactInfo("int", "ranks", "console, accelerate, model card, training_args.bin, live, --num-gpus"),
    "gpu.name": FactInfo("str", "", "console (llamafactory-cli env), wandb, swanlab, live"),
    "gpu.count": FactInfo("int", "GPUs", "console, wandb, swanlab, live"),
    "gpu.indices": FactInfo("list", "", "live: the index that nvidia-smi, amd-smi or npu-smi gives each visible card, in torch's order"),
    "gpu.total_gib": FactInfo("float", "GiB of one GPU", "console, wandb, live, --gpu-memory"),
    "device": FactInfo("str", "", "console (Process rank: ...), live: cpu, cuda, mps, npu, xpu"),
    "versions.*": FactInfo("str", "", "console, model card, wandb, swanlab, live"),
    "env.*": FactInfo("str", "", "command, live"),
    "host.used_gib": FactInfo("float", "GiB", "console: host memory in use by DeepSpeed's, Ray's or the kernel's last word"),
    "host.total_gib": FactInfo("float", "GiB", "console: all of it, or the limit of the container or job"),
    "host.percent": FactInfo("float", "%", "console: the share in use"),
    "host.full": FactInfo("bool", "", "console: a line says in words that host memory was full"),
    # launch
    "launcher": FactInfo("str", "", "command: torchrun, deepspeed, accelerate, llamafactory-cli, python"),
    "nproc_per_node": FactInfo("int", "processes", "command"),
    "num_processes": FactInfo("int", "processes", "command"),
    "nnodes": FactInfo("int", "nodes", "command"),
    "node_rank": FactInfo("int", "", "command"),
    "include": FactInfo("str", "", "command (deepspeed --include)"),
    "master_port": FactInfo("int", "", "command"),
    "rdzv_endpoint": FactInfo("str", "", "command"),
    "command": FactInfo("str", "", "journal"),
    "config.file": FactInfo("str", "", "analysis: the YAML that was read"),
    "failed_steps": FactInfo("str", "", "analysis: the steps, `120` or `111-120`, one of which an exception ended"),
    "length": FactInfo("int", "tokens", "analysis, estimate: the longest sequence that the training reads"),
    "length.source": FactInfo("str", "", "analysis, estimate: longest_batch or longest_sample (doctor/dataset/longest.py)"),
    "config.named": FactInfo("str", "", "command: the YAML or JSON file that it names"),
    "config.folder": FactInfo("str", "", "estimate: folder of the config, for relative paths in it"),
    "accelerate.config": FactInfo("dict", "", "accelerate; command holds the path of the file"),
    "accelerate.distributed_type": FactInfo("str", "", "accelerate"),
    "deepspeed.config": FactInfo("dict", "", "deepspeed, config"),
    "deepspeed.stage": FactInfo("int", "", "deepspeed, accelerate, console"),
    "llamafactory.parser_line": FactInfo(
        "int", "", "console: the line of hparams/parser.py that wrote Process rank: ...; tells the release"
    ),
    "llamafactory.trainer": FactInfo("str", "", "config, console: v1 where it is a config or a log of the v1 trainer"),
    "v1.config": FactInfo("dict", "", "config of the v1 trainer: values, and the lines of its keys"),
    # model
    "framework": FactInfo("str", "", "console, live"),
    "model.type": FactInfo("str", "", "console, config.json, live"),
    "model.task": FactInfo("str", "", "adapter_config.json, config.json: CAUSAL_LM, SEQ_CLS, ... as peft names them"),
    "model.config": FactInfo("dict", "", "console, config.json, tensorboard, live, --model-config"),
    "model.params": FactInfo("int", "parameters", "console, live"),
    "model.trainable_params": FactInfo("int", "parameters", "console, live"),
    "finetuning_method": FactInfo("str", "", "console: lora, dora, full, freeze, oft"),
    "quantized.bits": FactInfo("int", "bits", "console"),
    "attention": FactInfo("str", "", "console, live: fa2, sdpa, eager"),
    "gradient_checkpointing": FactInfo("bool", "", "console, live"),
    "compute_dtype": FactInfo("str", "", "console: bfloat16, float16, float32"),
    # plan and progress
    "batch.per_device": FactInfo("int", "samples", "console, live"),
    "batch.accumulation": FactInfo("int", "micro batches", "console, live"),
    "batch.total": FactInfo("int", "samples", "console, model card, live"),
    "preprocessing.workers": FactInfo("int", "processes", "console: the bars of datasets' map"),
    "examples.num": FactInfo("int", "samples", "console, results, live"),
    "epochs.planned": FactInfo("float", "epochs", "console, trainer_state, live"),
    "steps.planned": FactInfo("int", "optimizer steps", "console, trainer_log, trainer_state, live"),
    "steps.per_epoch": FactInfo("int", "optimizer steps", "console"),
    "resumed_from": FactInfo("str", "", "console: a checkpoint's path"),
    "launcher.closed_workers": FactInfo("bool", "", "console: torchrun ended its other processes"),
    "checkpoint.too_large": FactInfo("str", "GiB", "live: weights + optimizer states > free space of output_dir, in figures"),
    "checkpoint.saved": FactInfo("int", "optimizer steps", "console: the checkpoint that was begun last"),
    "run.started_training": FactInfo("bool", "", "console, live"),
    "run.completed": FactInfo("bool", "", "console, trainer_log, trainer_state, model card, results, live"),
    "run.running": FactInfo("bool", "", "watch"),
    "best.checkpoint": FactInfo("str", "", "trainer_state: the checkpoint that the trainer holds for the best"),
    "best.step": FactInfo("int", "optimizer steps", "trainer_state: its step"),
    "best.metric": FactInfo("float", "unit of metric_for_best_model", "trainer_state"),
    "best.is_last": FactInfo("bool", "", "trainer_state: whether the last evaluation was the best"),
    "checkpoint.last": FactInfo("str", "", "checkpoint folders: the one of the highest step that the run reached"),
    "best_saved.folder": FactInfo("str", "", "checkpoint folders: the saved one with the lowest eval loss"),
    "best_saved.value": FactInfo("float", "nats per token", "checkpoint folders: its eval loss"),
    "train.runtime_seconds": FactInfo("float", "s", "results, trainer_state"),
    "train.samples_per_second": FactInfo("float", "samples/s", "results, trainer_state"),
    "train.steps_per_second": FactInfo("float", "optimizer steps/s", "results, trainer_state"),
    "train.loss": FactInfo("float", "nats per token", "results, trainer_state, console: mean over the training"),
    "eval.loss": FactInfo("float", "nats per token", "results, console: of the evaluation after the training"),
    "learning_rate_set": FactInfo("float", "", "live: the rate that a healed attempt was given"),
    "stopped_by_doctor": FactInfo("str", "", "live: the reason"),
    "saved_at_step": FactInfo("int", "optimizer steps", "live"),
    "crashed_after_step": FactInfo("int", "optimizer steps", "live"),
    # what was read
    "text": FactInfo("bool", "", "console, error file: a log was read, so silence means something"),
    "phase": FactInfo("str", "", "detectors of text, in the facts of a match: what the run was doing (doctor.core.events.Phase)"),
    # dumps
    "memory.holders": FactInfo("str", "", "CUDA memory snapshot"),
    "memory.live_gib": FactInfo("float", "GiB", "CUDA memory snapshot"),
    "nccl.collectives.*": FactInfo("dict", "", "NCCL flight recorder of one rank"),
    "stands.*": FactInfo("dict", "", "stack dump of one rank"),
    # before the run (config/preflight.py)
    "config_duplicate_key": FactInfo("str", "", "config"),
    "config_is_json": FactInfo("str", "", "preflight"),
    "console.last_phase": FactInfo("str", "", "console: what the run was doing in its last line"),
    "first_sample.masked_tokens": FactInfo(
        "int", "tokens", "console: the first sample that LLaMA-Factory prints, if no token of it is trained on"
    ),
    "processor.error": FactInfo("str", "", "console: why LLaMA-Factory went on without the model's processor"),
    "processor.package": FactInfo("str", "", "console: the package that was missing for the processor"),
    "dataset.loading": FactInfo("str", "", "console: the data set whose loading LLaMA-Factory began last"),
    "config_of_web_ui": FactInfo("str", "", "check: the file's name where it holds the web UI's settings"),
    "dataset_info_unreadable": FactInfo("str", "", "preflight"),
    "dataset_undefined": FactInfo("str", "", "preflight"),
    "datasets_known": FactInfo("str", "", "preflight"),
    "dataset_has_ranking": FactInfo("str", "", "preflight"),
    "dataset_lacks_ranking": FactInfo("str", "", "preflight"),
    "dataset_file_missing": FactInfo("str", "", "preflight"),
    "dataset_file_type": FactInfo("str", "", "preflight"),
    "dataset_columns_missing": FactInfo("str", "", "preflight"),
    "model_folder_missing": FactInfo("str", "", "preflight, also before `lfdoctor run` starts a training"),
    "model_folders_known": FactInfo("str", "", "preflight, also before `lfdoctor run` starts a training"),
    "deepspeed_file_missing": FactInfo("str", "", "preflight"),
    "output_dir_checkpoint": FactInfo("str", "", "preflight"),
    "output_dir_weights": FactInfo("str", "", "preflight"),
    "forecast_verdict": FactInfo("str", "", "memory estimate of `check`: fits, tight, does_not_fit"),
    "forecast_peak_phase": FactInfo("str", "", "memory estimate of `check`"),
    "forecast_allocated_gib": FactInfo("float", "GiB", "memory estimate of `check`"),
    "forecast_low_gib": FactInfo("float", "GiB", "memory estimate of `check`"),
    "forecast_high_gib": FactInfo("float", "GiB", "memory estimate of `check`"),
    "forecast_capacity_gib": FactInfo("float", "GiB", "memory estimate of `check`"),
}


@functools.cache
def info(name: str) -> FactInfo | None:
    """The entry of a fact, by its name or by the pattern that it fits; None for a name that is not registered."""
    if name in FACTS:
        return FACTS[name]
    return next((entry for pattern, entry in FACTS.items() if "*" in pattern and fnmatch.fnmatchcase(name, pattern)), None)


def tokens_seen(metrics: Mapping[str, float]) -> float | None:
    """Tokens since the start of the training by the most trusted counter of these metrics; None where none is logged."""
    return next((metrics[name] for name in TOKEN_COUNTERS if name in metrics), None)
