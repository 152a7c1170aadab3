"""Faults written before anybody looked how lfdoctor answers them: options that contradict each other, and three of memory and numbers.

They are repaired by the client of `tests/lab/mcp_repairs.py`; `make lab` does not run them. Their cause is no expectation here (any may be
told): what counts is whether the training reaches its end.
"""

from __future__ import annotations

from typing import Any

from tests.lab.scenarios.base import GONE, Scenario

FULL = {"finetuning_type": "full", "lora_rank": GONE, "lora_target": GONE}
CARD_IS_FULL = {"at": "forward", "do": "raise", "oom": "2.5"}


def unseen() -> list[Scenario]:
    """Written and frozen on 2026-11-30, 22:30 UTC."""

    def fault(name: str, says: str, **change: Any) -> Scenario:
        more = {key: change.pop(key) for key in ("env", "fault", "gpu") if key in change}
        return Scenario(f"unseen-{name}", "*", says, {"max_steps": 8, **change}, curable=True, **more)

    return [
        fault(
            "both-precisions",
            "fp16 and bf16 together, where bf16 is there",
            fp16=True, bf16=True, use_cpu=True, env={"LFDOCTOR_LAB_BF16": "1"},
        ),
        fault("scheduler-name", "lr_scheduler_type: cosine_decay", lr_scheduler_type="cosine_decay"),
        fault("optimizer-name", "optim: adamw", optim="adamw"),
        fault("logging-steps-zero", "logging_steps: 0", logging_steps=0),
        fault("two-evaluation-sets", "val_size beside eval_dataset", val_size=0.1, eval_dataset="toy", eval_strategy="steps", eval_steps=4),
        fault("streamed-fraction", "a fraction as val_size of a stream", streaming=True, val_size=0.1, eval_strategy="steps", eval_steps=4),
        fault("save-strategy-name", "save_strategy: step", save_strategy="step"),
        fault(
            "best-model-steps",
            "the best model is kept, saves between evaluations",
            val_size=0.1, eval_strategy="steps", eval_steps=4, save_steps=6, load_best_model_at_end=True,
        ),
        fault(
            "best-model-metric",
            "the best model by a metric that nobody computes",
            val_size=0.1, eval_strategy="steps", eval_steps=4, save_steps=4, load_best_model_at_end=True, metric_for_best_model="accuracy",
        ),
        fault("quantized-resized", "resize_vocab of a quantized model", quantization_bit=4, resize_vocab=True),
        fault("badam-lora", "use_badam beside LoRA", use_badam=True),
        fault("lora-rank-zero", "lora_rank: 0", lora_rank=0),
        fault("prompt-and-history", "train_on_prompt beside mask_history", train_on_prompt=True, mask_history=True),
        fault("probabilities-of-concat", "interleave_probs beside concatenation", dataset="toy,long", interleave_probs="0.7,0.3"),
        fault("resume-from-nowhere", "resume_from_checkpoint names no folder", resume_from_checkpoint="saves/earlier/checkpoint-100"),
        fault(
            "freeze-module-name",
            "freeze_trainable_modules: attention",
            finetuning_type="freeze", lora_rank=GONE, lora_target=GONE, freeze_trainable_layers=1, freeze_trainable_modules="attention",
        ),
        fault(
            "dpo-pairs",
            "DPO: four pairs do not fit the card, two do",
            stage="dpo", dataset="pair", per_device_train_batch_size=4, gradient_accumulation_steps=1, learning_rate=5.0e-6,
            gpu=True, fault={**CARD_IS_FULL, "rows": 4},
        ),
        fault(
            "pretraining-rate",
            "full pre-training with learning rate 0.5",
            stage="pt", dataset="plain", max_steps=60, learning_rate=0.5, **FULL,
        ),
    ]  # fmt: skip
