"""What remedies do to a config, written by hand: config before and facts -> the changes (those of the fixtures are regenerated)."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.planner.situation import Situation, advise
from doctor.rulebook import loader
from doctor.rulebook.model import Remedy

BOOK = loader.load()
REMEDIES: dict[str, Remedy] = {}
for _rule in BOOK.rules:
    for _remedy in _rule.remedies:
        if _remedy.effect != "manual" and not _remedy.excluded:
            REMEDIES[_remedy.id] = REMEDIES[f"{_rule.id}#{_remedy.id}"] = _remedy
REMEDIES |= {step.remedy.id: step.remedy for step in (BOOK.guide.steps if BOOK.guide else ())}
LORA = {"stage": "sft", "finetuning_type": "lora", "model_name_or_path": "m"}
FULL = {"stage": "sft", "finetuning_type": "full", "model_name_or_path": "m"}
GONE = object()
"""The key is removed. (A key whose default is the wanted value already is not written.)"""

TABLE: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # the guide's fourteen steps
    ("quantise-4bit", LORA, {}, {"quantization_bit": 4}),
    ("gradient-checkpointing", {**LORA, "disable_gradient_checkpointing": True}, {}, {"disable_gradient_checkpointing": GONE}),
    (
        "smaller-batch",
        {**LORA, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
        {},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    ),
    ("smaller-batch", {**LORA, "per_device_train_batch_size": 3}, {}, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}),
    ("smaller-rank", {**LORA, "lora_rank": 64, "lora_alpha": 128}, {}, {"lora_rank": 32, "lora_alpha": 64}),
    ("lower-learning-rate", {**LORA, "learning_rate": 2e-4}, {}, {"learning_rate": 8e-5}),
    ("lower-learning-rate", {**LORA, "learning_rate": 0.5}, {}, {"learning_rate": 1e-4}),
    ("lower-learning-rate", {**FULL, "learning_rate": 1e-3}, {}, {"learning_rate": 1e-5}),
    ("lower-learning-rate", {**LORA, "stage": "dpo", "learning_rate": 1e-4}, {}, {"learning_rate": 5e-6}),
    ("longer-warmup", LORA, {"versions.transformers": "4.57.1"}, {"warmup_ratio": 0.1}),
    ("longer-warmup", {**LORA, "warmup_ratio": 0.03}, {"versions.transformers": "5.6.0"}, {"warmup_steps": 0.1, "warmup_ratio": GONE}),
    ("longer-warmup", {**LORA, "warmup_steps": 20}, {"versions.transformers": "4.57.1"}, {"warmup_steps": 40}),
    ("cosine-schedule", LORA, {}, {"lr_scheduler_type": "cosine"}),
    ("weight-decay", LORA, {}, {"weight_decay": 0.01}),
    ("lora-dropout", LORA, {}, {"lora_dropout": 0.05}),
    ("flash-attention", {**LORA, "bf16": True}, {"gpu.name": "NVIDIA A100", "device": "cuda"}, {"flash_attn": "fa2"}),
    ("more-preprocessing-workers", {**LORA, "preprocessing_num_workers": 1}, {"phase": "tokenise"}, {"preprocessing_num_workers": 16}),
    ("more-dataloader-workers", LORA, {"phase": "train"}, {"dataloader_num_workers": 4}),
    ("preprocess-ahead", {**LORA, "output_dir": "saves/a"}, {"phase": "tokenise"}, {"tokenized_path": "saves/a-tokenized"}),
    # memory beyond the guide
    ("eval-batch-one", {**LORA, "per_device_eval_batch_size": 8}, {"phase": "eval"}, {"per_device_eval_batch_size": 1}),
    ("eval-accumulation", LORA, {"phase": "eval"}, {"eval_accumulation_steps": 1}),
    ("empty-cache-steps", LORA, {"phase": "train"}, {"torch_empty_cache_steps": 10}),
    ("expandable-segments", LORA, {"device": "cuda"}, {"env:PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
    ("lora-instead-of-full", {**FULL, "learning_rate": 1e-5}, {}, {"finetuning_type": "lora", "learning_rate": 1e-4}),
    (
        "ref-model-quantised",
        {**LORA, "stage": "dpo", "finetuning_type": "full"},
        {"device": "cuda"},
        {"ref_model": "m", "ref_model_quantization_bit": 4},
    ),
    ("freeze-vision-tower", {**LORA, "freeze_vision_tower": False}, {}, {"freeze_vision_tower": True}),
    ("fewer-preprocessing-workers", {**LORA, "preprocessing_num_workers": 16}, {}, {"preprocessing_num_workers": 4}),
    ("no-pin-memory", LORA, {}, {"dataloader_pin_memory": False}),
    ("merge-on-cpu", {**LORA, "export_device": "auto"}, {}, {"export_device": "cpu"}),
    # stability and precision
    ("lower-grad-clip", {**LORA, "max_grad_norm": 1.0}, {}, {"max_grad_norm": 0.5}),
    ("no-loraplus", {**LORA, "loraplus_lr_ratio": 16.0}, {}, {"loraplus_lr_ratio": GONE}),
    ("usual-learning-rate", {**LORA, "learning_rate": 1e-9}, {}, {"learning_rate": 1e-4}),
    ("usual-learning-rate", {**FULL, "learning_rate": 1e-9}, {}, {"learning_rate": 1e-5}),
    ("bf16-instead-of-fp16", {**LORA, "fp16": True}, {"gpu.name": "NVIDIA A100"}, {"bf16": True, "fp16": GONE}),
    ("fp16-instead-of-bf16", {**LORA, "bf16": True}, {"gpu.name": "Tesla T4"}, {"fp16": True, "bf16": GONE}),
    ("mixed-precision-on", LORA, {"gpu.name": "NVIDIA H100"}, {"bf16": True}),
    ("upcast-layernorm", LORA, {}, {"upcast_layernorm": True}),
    ("show-nan", {**LORA, "logging_steps": 10}, {}, {"logging_nan_inf_filter": False, "logging_steps": 1}),
    (
        "larger-kto-batch",
        {**LORA, "stage": "kto", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    ),
    ("fewer-epochs", {**LORA, "num_train_epochs": 10.0}, {}, {"num_train_epochs": 5.0}),
    (
        "keep-best-checkpoint",
        {**LORA, "eval_strategy": "steps", "eval_steps": 50},
        {},
        {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "save_steps": 50},
    ),
    ("larger-pref-beta", {**LORA, "stage": "dpo", "pref_beta": 0.1}, {}, {"pref_beta": 0.3}),
    ("shorter-warmup", {**LORA, "warmup_steps": 500}, {}, {"warmup_steps": GONE, "warmup_ratio": 0.1}),
    # speed
    ("packing", LORA, {}, {"neat_packing": True}),
    ("fewer-evals", {**LORA, "eval_strategy": "steps", "eval_steps": 10}, {"fewer": 5}, {"eval_steps": 50}),
    ("smaller-validation-set", {**LORA, "val_size": 0.4}, {}, {"val_size": 0.1}),
    ("sdpa-attention", {**LORA, "flash_attn": "disabled"}, {}, {"flash_attn": "auto"}),
    # configuration
    (
        "config/finetuning-type-error#restore-finetuning-type-lora",
        {**LORA, "finetuning_type": "qlora"},
        {},
        {"finetuning_type": "lora", "quantization_bit": 4},
    ),
    ("new-name", {**LORA, "evaluation_strategy": "steps"}, {}, {"eval_strategy": "steps", "evaluation_strategy": GONE}),
    ("config/attention-unknown#flash-attn-auto", {**LORA, "flash_attn": True}, {}, {"flash_attn": "auto"}),
    ("val-size", LORA, {}, {"val_size": 0.1}),
    ("force-torchrun", {**LORA, "deepspeed": "ds.json"}, {}, {"env:FORCE_TORCHRUN": "1"}),
    ("new-output-dir", {**LORA, "output_dir": "saves/a"}, {}, {"output_dir": "saves/a-fix1"}),
    ("new-output-dir", {**LORA, "output_dir": "saves/a-fix1"}, {}, {"output_dir": "saves/a-fix2"}),
    ("resume-explicitly", {**LORA, "overwrite_output_dir": True}, {}, {"resume_from_checkpoint": True, "overwrite_output_dir": GONE}),
    ("number", {**LORA, "learning_rate": "5e-5"}, {"key": "learning_rate", "number": 5e-5}, {"learning_rate": 5e-5}),
    (
        "eval-strategy-match",
        {**LORA, "load_best_model_at_end": True, "save_steps": 100},
        {},
        {"eval_strategy": "steps", "eval_steps": 100, "val_size": 0.1},
    ),
]


@pytest.mark.parametrize(("name", "config", "facts", "expected"), TABLE, ids=[f"{row[0]}-{number}" for number, row in enumerate(TABLE)])
def test_a_remedy_changes_exactly_what_the_table_says(
    name: str, config: dict[str, Any], facts: dict[str, Any], expected: dict[str, Any]
) -> None:
    """No key more, none less, each with its value."""
    advice = advise(REMEDIES[name], Situation(config, facts, {}), {}, ())
    assert advice.status == "apply", advice.reason.en
    changed = {
        f"{'' if change.target == 'config' else change.target + ':'}{change.key}": GONE if change.op == "unset" else change.new
        for change in advice.changes
    }
    assert changed == expected


def test_every_step_of_the_guide_that_changes_a_config_is_in_the_table() -> None:
    """A new step needs a row here, written by hand."""
    assert BOOK.guide is not None
    changing = {step.remedy.id for step in BOOK.guide.steps if step.remedy.patch and step.remedy.effect != "manual"}
    assert changing <= {row[0] for row in TABLE}
