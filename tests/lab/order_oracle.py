"""Trains with the real LLaMA-Factory and notes which rows each step consumed: run by the lab's Python, one fork a job and rank.

Reads a list of jobs as JSON from the file argv[1]: {"work": folder, "config": {...}, "ranks": 2}. Every rank writes seen-RANK.jsonl into
the folder: [step, [row, ...]] for each call of training_step; a row is known by the mark `#123#` in its text.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import forked

MARK = re.compile(r"#(\d+)#")


def record(tokenizer: Any, rank: int) -> None:
    """Note the rows of every batch that a trainer computes a loss for."""
    from transformers import Trainer

    step = Trainer.training_step

    def recording(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        texts = tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=False)
        rows = list(dict.fromkeys(int(MARK.search(text)[1]) for text in texts))  # a pair has its mark twice
        with Path(f"seen-{rank}.jsonl").open("a") as log:
            log.write(json.dumps([self.state.global_step + 1, rows]) + "\n")
        return step(self, model, inputs, *arguments, **more)

    Trainer.training_step = recording


def load_on_cpu() -> None:
    """Resuming several ranks without a GPU: transformers asks torch for the device cpu:0, which torch 2.13 does not restore to."""
    import torch

    load = torch.load

    def loading(*arguments: Any, **more: Any) -> Any:
        return load(*arguments, **more | {"map_location": "cpu"})

    torch.load = loading


def on_cpu_as_on_gpus(config: dict[str, Any]) -> None:
    """DeepSpeed without its compiled collectives, FSDP where accelerate would take DDP because there is no GPU."""
    if config.get("deepspeed"):
        import deepspeed.comm.torch  # noqa: F401

        sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    if config.get("fsdp"):
        import accelerate.state as state

        begin = state.AcceleratorState.__init__

        def beginning(self: Any, *arguments: Any, **more: Any) -> None:
            shared = state.PartialState._shared_state
            if shared.get("distributed_type") == state.DistributedType.MULTI_CPU:
                shared["distributed_type"] = state.DistributedType.MULTI_GPU
            begin(self, *arguments, **more)
            assert self.distributed_type == state.DistributedType.FSDP

        state.AcceleratorState.__init__ = beginning


def train(job: dict[str, Any]) -> bool:
    """One training; whether each of its ranks ended well."""

    def run(rank: int) -> None:
        from llamafactory.train.tuner import run_exp
        from transformers import AutoTokenizer

        load_on_cpu()
        on_cpu_as_on_gpus(job["config"])
        record(AutoTokenizer.from_pretrained(job["config"]["model_name_or_path"]), rank)
        run_exp(job["config"], callbacks=[])

    return not any(forked.train(job, run))


def main() -> None:
    """All jobs; one line each: ok or failed."""
    jobs = json.loads(Path(sys.argv[1]).read_text())
    with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints a warning
        forked.load_training(with_deepspeed=any(job["config"].get("deepspeed") for job in jobs))
    for job in jobs:
        print("ok" if train(job) else "failed", flush=True)


if __name__ == "__main__":
    main()
