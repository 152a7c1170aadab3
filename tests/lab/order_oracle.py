"""Trains with the real LLaMA-Factory and notes which rows each step consumed: run by the lab's Python, one fork a job and rank.

Reads a list of jobs as JSON from the file argv[1]: {"work": folder, "config": {...}, "ranks": 2}. Every rank writes seen-RANK.jsonl into
the folder: [step, [row, ...]] for each call of training_step; a row is known by the mark `#123#` in its text.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from forked import free_port

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


def child(job: dict[str, Any], rank: int, port: int) -> int:
    """One rank, in the fork."""
    os.chdir(job["work"])
    log = os.open("all.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if job["ranks"] > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job["ranks"]), LOCAL_WORLD_SIZE=str(job["ranks"]))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.argv = ["train.py"]
    try:
        from llamafactory.train.tuner import run_exp
        from transformers import AutoTokenizer

        load_on_cpu()
        record(AutoTokenizer.from_pretrained(job["config"]["model_name_or_path"]), rank)
        run_exp(job["config"], callbacks=[])
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def train(job: dict[str, Any]) -> bool:
    """All ranks of one training; whether each ended well."""
    port = free_port()
    ranks = []
    for rank in range(job["ranks"]):
        pid = os.fork()
        if pid == 0:
            code = child(job, rank, port)
            atexit._run_exitfuncs()
            os._exit(code)
        ranks.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
    return not any(codes)


def main() -> None:
    """All jobs; one line each: ok or failed."""
    sys.modules.update({"bitsandbytes": None, "deepspeed": None})
    import llamafactory.train.tuner  # noqa: F401
    import peft.tuners.lora.model  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    import trl  # noqa: F401

    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        print("ok" if train(job) else "failed", flush=True)


if __name__ == "__main__":
    main()
