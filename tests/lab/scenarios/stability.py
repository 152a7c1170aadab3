"""Learning rates that are too high, NaN, overfitting."""

from __future__ import annotations

from tests.lab.scenarios.base import GONE, Scenario


def stability() -> list[Scenario]:
    full = {"finetuning_type": "full", "lora_rank": GONE, "lora_target": GONE}
    nan = {"at": "attention", "do": "nan", "step": 9}
    return [
        Scenario(
            "lr_too_high-lora",
            "lr_too_high",
            "LoRA with learning rate 0.3: the loss rises and stays",
            {"learning_rate": 0.3, "lr_scheduler_type": "constant", "warmup_steps": GONE, "max_steps": 60},
            curable=True,
        ),
        Scenario(
            "lr_too_high-full",
            "lr_too_high",
            "full fine-tuning, a warm-up that goes on to 0.0375: the loss falls, then explodes",
            {**full, "learning_rate": 3.75e-2, "max_steps": 80, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 60},
            curable=True,
        ),
        Scenario(
            "lr_too_high-full-eval",
            "lr_too_high",
            "the same with evaluation and few logs",
            {
                **full,
                "learning_rate": 7.5e-2,
                "max_steps": 160,
                "lr_scheduler_type": "constant_with_warmup",
                "warmup_steps": 120,
                "logging_steps": 4,
                "val_size": 0.1,
                "eval_strategy": "steps",
                "eval_steps": 20,
            },
            curable=True,
        ),
        Scenario(
            "lr_too_high-dpo",
            "lr_too_high",
            "DPO with learning rate 0.1",
            {"stage": "dpo", "dataset": "pair", "learning_rate": 0.1, "max_steps": 60, "pref_beta": 0.1},
            curable=True,
        ),
        Scenario(
            "lr_too_high-saturated",
            "lr_too_high",
            "learning rate 1000: constant loss, zero gradient",
            {**full, "learning_rate": 1000.0, "max_steps": 30, "warmup_steps": GONE},
            curable=True,
        ),
        Scenario(
            "nonfinite_cause_unknown-attention",
            "nonfinite_cause_unknown",
            "attention gives NaN from step 9 on; logging_nan_inf_filter hides it: loss 0.0",
            {"max_steps": 24},
            fault=nan,
        ),
        Scenario(
            "nonfinite_cause_unknown-unfiltered",
            "nonfinite_cause_unknown",
            "the same, shown as nan",
            {"max_steps": 24, "logging_nan_inf_filter": False},
            fault=nan,
        ),
        Scenario(
            "nonfinite_cause_unknown-logged-every-5",
            "nonfinite_cause_unknown",
            "the same, logged every 5 steps, with TensorBoard",
            {"max_steps": 40, "logging_steps": 5, "report_to": "tensorboard"},
            fault=nan,
        ),
        Scenario(
            "nonfinite_cause_unknown-one-batch",
            "nonfinite_cause_unknown",
            "one bad forward is enough: weights are NaN from then on",
            {"max_steps": 24},
            fault={**nan, "times": 1},
        ),
        Scenario(
            "fp16_overflow-attention",
            "fp16_overflow",
            "fp16 and activations out of range",
            {"max_steps": 24, "fp16": True, "use_cpu": True},
            fault={"at": "attention", "do": "scale", "factor": 1.0e39, "step": 9},
            also=("nonfinite_cause_unknown",),
        ),
        Scenario(
            "overfitting-tiny-set",
            "overfitting",
            "many epochs over 24 samples: eval loss rises",
            {
                **full,
                "max_samples": 32,
                "val_size": 0.25,
                "eval_strategy": "steps",
                "eval_steps": 10,
                "learning_rate": 3.0e-3,
                "max_steps": 120,
                "logging_steps": 2,
            },
        ),
        Scenario(
            "lr_warmup-longer-than-run",
            "lr_*",
            "warm-up of 1000 steps in a run of 40",
            {"warmup_steps": 1000},
            also=("warmup*", "config*"),
            curable=True,
        ),
    ]
