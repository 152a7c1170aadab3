"""Trains in forks of one process that has imported LLaMA-Factory (five seconds) once: run by the lab's Python, told by lines of JSON.

A line {"work": folder, "config": {...}, "ranks": 2, "callback": true, "kind": "llamafactory" | "trl-sft" | "trl-dpo"} trains in that
folder as `run_exp(config, callbacks=[DoctorCallback()])` would; each rank gets torchrun's variables. The answer is {"code": exit code}.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from forked import free_port


def callbacks(wanted: bool) -> list[Any]:
    if not wanted:
        return []
    from doctor import DoctorCallback

    return [DoctorCallback()]


def llamafactory(config: dict[str, Any], ours: bool) -> None:
    from llamafactory.train.tuner import run_exp

    run_exp(config, callbacks=callbacks(ours))


def trl(kind: str, config: dict[str, Any], ours: bool) -> None:
    """A trainer of TRL's, as its own examples start one."""
    import trl as library
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = {"trl-sft": "SFT", "trl-dpo": "DPO"}[kind]
    tokenizer = AutoTokenizer.from_pretrained("models/tiny-llama")
    rows = load_dataset("json", data_files=f"data/{'toy' if name == 'SFT' else 'pair'}.json", split="train")
    rows = rows.map(
        lambda row: {"prompt": row["instruction"], "completion": row.get("output", "")}, remove_columns=["instruction", "input"]
    )
    if name == "DPO":
        rows = rows.remove_columns(["completion"])
    arguments = getattr(library, f"{name}Config")(**config, bf16=False, use_cpu=True, max_length=64)
    model = AutoModelForCausalLM.from_pretrained("models/tiny-llama")
    model.warnings_issued = {}  # trl 0.24 writes into what transformers 5 no longer has
    trainer = getattr(library, f"{name}Trainer")(
        model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, callbacks=callbacks(ours)
    )
    trainer.train()
    trainer.save_state()
    trainer.save_model()


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
        if job["kind"] == "llamafactory":
            llamafactory(job["config"], job["callback"])
        else:
            trl(job["kind"], job["config"], job["callback"])
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def train(job: dict[str, Any]) -> int:
    """All ranks of one training; the first exit code that is not 0."""
    port = free_port()
    ranks = []
    for rank in range(job["ranks"]):
        pid = os.fork()
        if pid == 0:
            code = child(job, rank, port)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        ranks.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in ranks)


def main() -> None:
    """Until there are no more lines."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.modules.update({"bitsandbytes": None, "deepspeed": None})  # slow to import, not used here
    import llamafactory.train.tuner  # noqa: F401
    import peft.tuners.lora.model  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    import trl  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps({"code": int(train(json.loads(line)))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
