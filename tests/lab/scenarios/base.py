"""What a scenario is, and the training YAML it starts from."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

BASE: dict[str, dict[str, Any]] = {
    "model": {"model_name_or_path": "models/tiny-llama"},
    "method": {"stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all"},
    "dataset": {"dataset": "toy", "dataset_dir": "data", "template": "llama3", "cutoff_len": 128},
    "output": {"output_dir": "saves/tiny-llama/lora/sft", "logging_steps": 1, "save_steps": 500, "report_to": "none"},
    "train": {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 5.0e-4,
        "max_steps": 40,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 4,
    },
}
"""A config as LLaMA-Factory's examples write it: five sections with a comment each."""

GONE = object()
"""Stands for a key that the scenario leaves out."""


@dataclass(frozen=True)
class Scenario:
    """One run.

    `cause` is what must be reported as the root cause (None: a healthy run), as a pattern; one of `also` may be reported instead.
    `decidable=False`: the log proves no cause. `status` is the run's status that must be reported.
    `fault` is for faults/sitecustomize.py; `gpu`: it plays a card that the lab lacks. `failing_rank` is the rank that fails first.
    `curable`: the patched config must train to its end under the same circumstances.
    `patch_runs`: it must do so when the fault is not put in; proves that the patch is more than acceptable.
    `limit_mib` is the address space granted on top of what the run needs with one sample per batch.
    `share` names the seconds of truth.json (injected, eval, save) that a speed finding is compared with.
    `script`: run by a shell script, which tells of a killed child. `held_port` is kept busy. `earlier` runs go first, in the same folders.
    `watched`: under `lfdoctor run`, so that the callback's clocks are there too.
    `clock`: the wall clock runs that many times too fast, so that minutes pass in seconds.
    `raw` is the whole training YAML, where it is not BASE with `change` on top.
    """

    name: str
    cause: str | None
    says: str
    change: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    fault: Mapping[str, Any] = field(default_factory=dict)
    ranks: int = 1
    failing_rank: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    earlier: tuple[Mapping[str, Any], ...] = ()
    capture: Literal["file", "split", "terminal"] = "file"
    script: bool = True
    unbuffered: bool = False
    limit_mib: int | None = None
    gpu: bool = False
    curable: bool = False
    patch_runs: bool = False
    decidable: bool = True
    status: str | None = None
    held_port: int | None = None
    share: str | None = None
    raw: str | None = None
    watched: bool = False
    clock: int = 1

    def accepts(self, cause: str | None) -> bool:
        """Whether `cause` is the declared one, or one of those that may be told instead; `unknown` in `also` stands for None."""
        return any(fnmatch.fnmatchcase(cause or "unknown", wanted) for wanted in (self.cause or "", *self.also))

    @property
    def yaml(self) -> str:
        """The training YAML."""
        return self.raw if self.raw is not None else yaml_text(self.change)


def yaml_text(change: Mapping[str, Any]) -> str:
    """BASE with `change` on top, as a user's YAML: sections, comments, key order; new keys stand in the last section they fit."""
    left = dict(change)
    out = []
    for section, values in BASE.items():
        here = {key: left.pop(key, value) for key, value in values.items()}
        here |= {
            key: left.pop(key)
            for key in list(left)
            if SECTION_OF.get(key, "train") == section and not any(key in one for one in BASE.values())
        }
        lines = [f"{key}: {_scalar(value)}" for key, value in here.items() if value is not GONE]
        out.append("\n".join([f"### {section}", *lines]))
    return "\n\n".join(out) + "\n"


SECTION_OF = {
    **dict.fromkeys(("flash_attn", "quantization_bit", "disable_gradient_checkpointing", "trust_remote_code"), "model"),
    **dict.fromkeys(("do_eval", "pref_loss", "pref_beta", "deepspeed", "pure_bf16", "freeze_trainable_layers", "lora_alpha"), "method"),
    **dict.fromkeys(("val_size", "max_samples", "preprocessing_num_workers", "packing", "overwrite_cache", "eval_dataset"), "dataset"),
    **dict.fromkeys(("plot_loss", "overwrite_output_dir", "include_num_input_tokens_seen", "save_total_limit"), "output"),
}


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and ("e" in repr(value) or value < 1e-2):
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if float(mantissa) != int(float(mantissa)) else mantissa[:3]}e{int(exponent):+03d}"
    return str(value)
