"""Runs that nothing is wrong with: every stage, every way of capturing the console."""

from __future__ import annotations

from typing import Any

from tests.lab.scenarios.base import GONE, Scenario


def healthy() -> list[Scenario]:
    def one(name: str, says: str, **change: Any) -> Scenario:
        stage, method = str(change.get("stage", "sft")), str(change.get("finetuning_type", "lora"))
        return Scenario(f"healthy-{name}", None, says, {"output_dir": f"saves/tiny-llama/{method}/{stage}", **change})

    pair = {"dataset": "pair", "max_steps": 30}
    runs = [
        one("pt", "continued pre-training", stage="pt", dataset="plain", learning_rate=1.0e-3),
        one("sft", "supervised fine-tuning with LoRA, checkpoints, loss plot off", save_steps=20),
        one(
            "sft-eval",
            "supervised fine-tuning with evaluation",
            val_size=0.1,
            eval_strategy="steps",
            eval_steps=10,
            per_device_eval_batch_size=4,
        ),
        one(
            "sft-tensorboard",
            "supervised fine-tuning with TensorBoard and token counts",
            report_to="tensorboard",
            include_num_input_tokens_seen=True,
        ),
        one(
            "swanlab",
            "supervised fine-tuning tracked by SwanLab on this machine only",
            use_swanlab=True,
            swanlab_mode="local",
            swanlab_project="toy",
        ),
        one("rm", "reward model", stage="rm", **pair),
        one("dpo", "direct preference optimisation", stage="dpo", pref_beta=0.1, **pair),
        one("orpo", "stage dpo with pref_loss orpo", stage="dpo", pref_loss="orpo", **pair),
        one("kto", "Kahneman-Tversky optimisation", stage="kto", dataset="kto", per_device_train_batch_size=4, max_steps=30),
        one("full", "full fine-tuning", finetuning_type="full", lora_rank=GONE, lora_target=GONE, learning_rate=2.0e-4),
        one("freeze", "freeze fine-tuning", finetuning_type="freeze", lora_rank=GONE, lora_target=GONE, freeze_trainable_layers=1),
        one(
            "epochs",
            "three whole epochs of few samples: the loss goes down in stairs",
            max_steps=GONE,
            num_train_epochs=3.0,
            max_samples=80,
        ),
    ]
    more = [
        Scenario("healthy-two-ranks", None, "two ranks over gloo", {"max_steps": 30}, ranks=2),
        Scenario("healthy-terminal", None, "the same run copied from a terminal: every line in the order of time", capture="terminal"),
        Scenario(
            "healthy-split-streams", None, "stdout and stderr in two files, as Slurm keeps them", {"logging_steps": 5}, capture="split"
        ),
        Scenario(
            "healthy-resumed",
            None,
            "stopped at step 20 of 20, then continued to 40 from its checkpoint",
            {"resume_from_checkpoint": "saves/tiny-llama/lora/sft/checkpoint-20"},
            earlier=({"max_steps": 20},),
        ),
    ]
    return runs + more
