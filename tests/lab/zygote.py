"""Trains in forks of one process that has imported LLaMA-Factory (five seconds) once: run by the lab's Python, told by lines of JSON.

A line {"work": folder, "config": {...}, "ranks": 2, "callback": true, "kind": "llamafactory" | "trl-sft" | "trl-dpo"} trains in that
folder as `run_exp(config, callbacks=[DoctorCallback()])` would; each rank gets torchrun's variables. The answer is {"code": exit code}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import forked


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


def train(job: dict[str, Any]) -> int:
    """One training; whether one of its ranks failed, as an exit code."""

    def run(rank: int) -> None:
        if job["kind"] == "llamafactory":
            llamafactory(job["config"], job["callback"])
        else:
            trl(job["kind"], job["config"], job["callback"])

    return int(any(forked.train(job, run)))


def main() -> None:
    """Until there are no more lines."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    forked.load_training()
    for line in sys.stdin:
        print(json.dumps({"code": train(json.loads(line))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
