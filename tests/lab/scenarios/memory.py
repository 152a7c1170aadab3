"""Out of memory, on the card and on the host, and full disks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.lab.scenarios.base import GONE, Scenario


def memory() -> list[Scenario]:
    def oom(name: str, cause: str, says: str, at: str, change: Mapping[str, Any] | None = None, **rest: Any) -> Scenario:
        fault = {"at": at, "do": "raise", "oom": rest.pop("oom", "2.9"), "step": rest.pop("step", 0), "figures": rest.pop("figures", {})}
        fault |= {key: rest.pop(key) for key in ("skip", "rank") if key in rest}
        return Scenario(f"{cause}-{name}", cause, says, {"max_steps": 24, **(change or {})}, fault=fault, gpu=True, **rest)

    activations, full = "gpu_oom_activations", {"finetuning_type": "full", "lora_rank": GONE, "lora_target": GONE}
    big = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    evaluated = {"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 8, "per_device_eval_batch_size": 16}
    shard = {"wanted": "224.00 MiB", "free": "85.00 MiB", "used": "23.48 GiB", "allocated": "23.10 GiB", "unallocated": "2.10 MiB"}
    runs = [
        oom("forward-torch1", activations, "PyTorch 1.x wording, a RuntimeError", "forward", big, oom="1.x"),
        oom("forward-torch20", activations, "PyTorch 2.0: torch.cuda.OutOfMemoryError, old wording", "forward", big, oom="2.0"),
        oom("forward-torch21", activations, "PyTorch 2.1: 'capacty'", "forward", big, oom="2.1"),
        oom("forward-torch22", activations, "PyTorch 2.2 to 2.4", "forward", big, oom="2.2", capture="split"),
        oom("forward", activations, "PyTorch 2.5 to 2.8, at the first step, batch 8", "forward", big, oom="2.5", patch_runs=True),
        oom("backward", activations, "in backward", "backward", big),
        oom("backward-terminal", activations, "in backward, seen in a terminal", "backward", big, oom="2.5", capture="terminal"),
        oom(
            "midrun",
            "gpu_oom_long_sequence",
            "in forward at step 18 of 24, after many steps that fitted",
            "forward",
            {"cutoff_len": 512},
            step=18,
            also=(activations,),
            figures={"wanted": "2.38 GiB", "free": "1.91 GiB", "used": "21.65 GiB", "allocated": "20.93 GiB"},
        ),
        oom(
            "cross-entropy",
            "gpu_oom_lm_head_logits",
            "in the cross entropy over the vocabulary",
            "logits",
            big,
            also=(activations,),
            figures={"wanted": "7.83 GiB", "free": "5.12 GiB", "used": "18.44 GiB", "allocated": "17.61 GiB"},
        ),
        oom(
            "first-step",
            "gpu_oom_optimizer_states",
            "Adam states at the first optimizer step of a full fine-tune",
            "optimizer",
            full,
            figures=shard,
            patch_runs=True,
        ),
        oom("load", "gpu_oom_model_exceeds_single_gpu", "while the weights are loaded", "load", skip=5, figures=shard),
        oom(
            "load-full",
            "gpu_oom_model_exceeds_single_gpu",
            "a full fine-tune whose weights do not load",
            "load",
            full,
            skip=5,
            figures=shard,
            patch_runs=True,
        ),
        oom(
            "dpo-full",
            "gpu_oom_reference_model",
            "DPO with full fine-tuning loads a second model",
            "load",
            {**full, "stage": "dpo", "dataset": "pair"},
            skip=25,
            figures=shard,
            also=("gpu_oom_model_exceeds_single_gpu",),
            patch_runs=True,
        ),
        oom("eval", "gpu_oom_eval_or_predict", "in the first evaluation; training fits", "eval", evaluated),
        oom("save", "gpu_oom_checkpoint_save", "while a checkpoint is written", "save", {"save_steps": 8}),
        oom(
            "fragmented",
            "gpu_oom_fragmentation",
            "6 GiB reserved but unallocated, 1 GiB wanted",
            "forward",
            big,
            step=6,
            figures={"wanted": "1.02 GiB", "free": "310.00 MiB", "used": "23.26 GiB", "allocated": "16.40 GiB", "unallocated": "6.31 GiB"},
        ),
        oom(
            "shared-card",
            "device_held_by_other_process",
            "another process holds 19 GiB of the card",
            "forward",
            figures={
                "wanted": "64.00 MiB",
                "free": "21.00 MiB",
                "used": "4.11 GiB",
                "allocated": "3.80 GiB",
                "unallocated": "22.70 MiB",
                "others": "Process 20817 has 19.44 GiB memory in use. ",
            },
        ),
        oom("one-rank", activations, "on rank 1 of 2, in forward at step 6", "forward", big, step=6, rank=1, ranks=2, failing_rank=1),
        oom("both-ranks", activations, "on both ranks at the first step", "forward", big, ranks=2),
        oom(
            "one-rank-backward",
            activations,
            "on rank 0 of 2, in backward",
            "backward",
            big,
            step=3,
            rank=0,
            ranks=2,
            failing_rank=0,
            oom="2.5",
        ),
        oom(
            "one-rank-load",
            "gpu_oom_weights_replicated_per_rank",
            "rank 1 of 2 cannot load its copy",
            "load",
            rank=1,
            skip=9,
            ranks=2,
            failing_rank=1,
            figures=shard,
            also=("gpu_oom_model_exceeds_single_gpu",),
        ),
        oom("one-rank-eval", "gpu_oom_eval_or_predict", "rank 1 of 2 in evaluation", "eval", evaluated, rank=1, ranks=2, failing_rank=1),
    ]
    host = [
        Scenario(
            "host_ram_oom-batch",
            "host_ram_*",
            "a real allocation failure: the batch does not fit the address-space limit",
            {
                "per_device_train_batch_size": 240,
                "gradient_accumulation_steps": 1,
                "disable_gradient_checkpointing": True,
                "max_steps": 2,
                "cutoff_len": 256,
                "dataset": "long",
            },
            limit_mib=450,
            curable=True,
            also=("gpu_oom_activations",),
        ),
        Scenario(
            "disk_full-checkpoint",
            "disk_full",
            "no space left while the optimizer state is written",
            {"save_steps": 8, "max_steps": 24},
            fault={"at": "save", "do": "raise", "raise": "OSError", "args": [28, "No space left on device"]},
        ),
        Scenario(
            "disk_full-two-ranks",
            "disk_full",
            "rank 0 of 2 cannot write the checkpoint",
            {"save_steps": 8, "max_steps": 24},
            fault={"at": "save", "do": "raise", "raise": "OSError", "args": [28, "No space left on device"], "rank": 0},
            ranks=2,
            failing_rank=0,
        ),
    ]
    return runs + host
