"""Trains with the real LLaMA-Factory until one marked sample makes a step fail: run by the lab's Python, one fork a job and rank.

Reads a list of jobs as JSON from the file argv[1]: {"work": folder, "config": {...}, "ranks": 2, "fault": "oom" | "nan" | "error", "mark":
"#123#"}. The batch that holds the mark runs out of memory, has a loss of NaN, or raises; the console is all.log in the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import forked

MORE_STEPS = 12
"""Steps that a run goes on after the first NaN."""
OOM = (
    "CUDA out of memory. Tried to allocate 18.20 GiB. GPU 0 has a total capacity of 79.15 GiB of which 9.10 GiB is free. Process 1 has "
    "70.05 GiB memory in use. Of the allocated memory 68.10 GiB is allocated by PyTorch, and 1.10 GiB is reserved by PyTorch but "
    "unallocated."
)


def spoil(tokenizer: Any, fault: str, mark: str) -> None:
    """Let the batch that holds the mark fail."""
    import torch
    from transformers import Trainer

    step, loss = Trainer.training_step, Trainer.compute_loss

    def holds(inputs: dict[str, Any]) -> bool:
        return any(mark in text for text in tokenizer.batch_decode(inputs["input_ids"]))

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        if holds(inputs) and fault == "oom":
            raise torch.OutOfMemoryError(OOM)
        if holds(inputs) and fault == "error":
            raise RuntimeError("The size of tensor a (96) must match the size of tensor b (95) at non-singleton dimension 1")
        return loss(self, model, inputs, *arguments, **more)

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        if fault == "nan" and holds(inputs):
            self.spoilt = self.state.global_step
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(lambda grad: grad * float("nan"))
            return step(self, model, inputs, *arguments, **more) * float("nan")
        if self.state.global_step > getattr(self, "spoilt", 1 << 40) + MORE_STEPS:
            self.control.should_training_stop = True
        return step(self, model, inputs, *arguments, **more)

    Trainer.training_step, Trainer.compute_loss = training_step, compute_loss


def train(job: dict[str, Any]) -> list[int]:
    """One training; the exit codes of its ranks."""

    def run(rank: int) -> None:
        from llamafactory.train.tuner import run_exp
        from transformers import AutoTokenizer

        spoil(AutoTokenizer.from_pretrained(job["config"]["model_name_or_path"]), job["fault"], job["mark"])
        run_exp(job["config"], callbacks=[])

    return forked.train(job, run)


def main() -> None:
    """All jobs; the exit codes of each as a line."""
    forked.load_training()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        print(json.dumps(train(job)), flush=True)


if __name__ == "__main__":
    main()
