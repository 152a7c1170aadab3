"""Trains with the real LLaMA-Factory and notes the longest padded batch: run by the lab's Python, one fork a job.

Reads a list of jobs as JSON from the file argv[1]: {"work": folder, "config": {...}}; prints a line of JSON for each, [tokens of the
longest row of a batch, batches], or null where the training failed (all.log in the folder).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def child(job: dict[str, Any]) -> int:
    """One training, in the fork."""
    os.chdir(job["work"])
    log = os.open("all.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["train.py"]
    try:
        from llamafactory.train.tuner import run_exp
        from transformers import Trainer

        step = Trainer.training_step
        seen: list[int] = []

        def recording(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
            seen.append(inputs["input_ids"].shape[1])
            Path("seen.json").write_text(json.dumps([max(seen), len(seen)]))
            return step(self, model, inputs, *arguments, **more)

        Trainer.training_step = recording
        run_exp(job["config"], callbacks=[])
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """All jobs."""
    sys.modules.update({"bitsandbytes": None, "deepspeed": None})
    import llamafactory.train.tuner  # noqa: F401
    import peft.tuners.lora.model  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        pid = os.fork()
        if pid == 0:
            os._exit(child(job))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print((Path(job["work"]) / "seen.json").read_text() if code == 0 else "null", flush=True)


if __name__ == "__main__":
    main()
