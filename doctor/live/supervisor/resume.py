"""From which checkpoint a restart may continue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doctor.config.options import effective
from doctor.live.supervisor import checkpoints
from doctor.live.supervisor.attempts import LOST_SYMPTOMS, HealAttempt
from doctor.live.supervisor.checkpoints import Checkpoint
from doctor.planner.situation import next_name

_IN_THE_WEIGHTS = (*LOST_SYMPTOMS, "loss_spike", "gradient")
"""Symptoms that the weights carry on: a checkpoint written after their onset is no good."""
RESUMABLE = frozenset(
    {
        "per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size", "eval_accumulation_steps",
        "disable_gradient_checkpointing", "use_unsloth_gc", "flash_attn", "enable_liger_kernel", "quantization_bit", "quantization_method",
        "cutoff_len", "tokenized_path", "max_grad_norm", "torch_empty_cache_steps", "upcast_layernorm", "bf16", "fp16",
        "save_total_limit", "save_steps", "save_strategy", "save_only_model", "eval_steps", "eval_strategy", "logging_steps",
        "logging_nan_inf_filter", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
        "dataloader_prefetch_factor", "preprocessing_num_workers", "preprocessing_batch_size", "ddp_timeout", "report_to", "plot_loss",
        "compute_accuracy", "predict_with_generate", "image_max_pixels", "video_max_pixels", "ddp_find_unused_parameters",
    }
)  # fmt: skip
"""Keys that leave shapes, optimizer states, schedule and data order as a checkpoint has them; learning_rate is handled apart."""
_SCALED_SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "inverse_sqrt")
"""Schedules that are a factor of the learning rate (transformers/optimization.py, LambdaLR)."""
_OTHER_OPTIMIZERS = ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon", "deepspeed", "fsdp")
"""Options with an optimizer whose learning rate the callback cannot set."""


def resume_point(attempt: HealAttempt, changed: set[str], points: list[Checkpoint]) -> Checkpoint | None:
    """The newest whole checkpoint from before the trouble; None if one of the `changed` keys does not fit a checkpoint."""
    values = effective(attempt.values, {})
    if values.get("stage") in ("ppo", "rm"):  # LLaMA-Factory does not restore the value head (hparams/parser.py 476, 500)
        return None
    if not changed <= RESUMABLE | {"learning_rate"} or ("learning_rate" in changed and not _rate_can_change(attempt, values)):
        return None
    if "cutoff_len" in changed and (values.get("packing") or values.get("neat_packing") or values.get("stage") == "pt"):
        return None  # another number of samples: the schedule would not fit
    root = attempt.root
    if root is not None and root.symptom in _IN_THE_WEIGHTS:
        every = values.get("logging_steps")
        window = int(every) if isinstance(every, int | float) and every >= 1 else 1
        onset = root.steps[0] if root.steps else 0
        # the onset is the first bad log, a mean over the steps since the log before it: any of those may have been bad
        points = [point for point in points if point.step <= onset - window]
    return max(points, default=None)


def _rate_can_change(attempt: HealAttempt, values: Mapping[str, Any]) -> bool:
    """Whether the callback can change the rate of a resumed optimizer and schedule: it was loaded, and both are torch's own."""
    schedule = str(values.get("lr_scheduler_type") or "linear")
    return attempt.hooked and schedule in _SCALED_SCHEDULES and not any(values.get(key) for key in _OTHER_OPTIMIZERS)


def first_checkpoint(values: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint a training starts from as given: the config's, else the newest folder, whole or not, that LLaMA-Factory resumes
    without being asked (hparams/parser.py: do_train, no overwrite_output_dir).
    """
    found = re.fullmatch(r".*checkpoint-(\d{1,12})[/\\]?", str(values.get("resume_from_checkpoint") or ""))
    if found:
        return Checkpoint(int(found[1]), Path(found[0]))
    if not values.get("output_dir") or values.get("overwrite_output_dir") or values.get("resume_from_checkpoint"):
        return None
    return checkpoints.newest(Path(str(values["output_dir"])))


def cannot_resume(attempt: HealAttempt) -> bool:
    """Whether it failed between loading its checkpoint and the first step.

    For a restart: of something that the attempt before did not fail of. For the first attempt: of a damaged checkpoint.
    """
    if attempt.resume is None or attempt.last_step > attempt.resume.step or attempt.code == 0:
        return False
    if attempt.parent is not None:
        return attempt.cause != attempt.parent.cause
    if attempt.cause == "checkpoint_load_failure":
        return True
    return attempt.cause in ("model_files_corrupt", "unknown") and checkpoints.is_damaged(attempt.resume)


def unused(output: str) -> str:
    """The first of `output-fix1`, `output-fix2`, ... that does not exist."""
    name = next_name(output)
    while Path(name).exists():
        name = next_name(name)
    return name
