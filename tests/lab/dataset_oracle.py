"""Asks the real LLaMA-Factory for the token ids and labels of data sets. Runs inside the lab's environment.

    python dataset_oracle.py JOBS ANSWERS      JOBS: a JSON list of training configurations; ANSWERS: a JSON line for each

An answer is {"samples": [[ids, labels], ...]} (pairs: the chosen and the rejected one after the other) or {"error": "Type: message"}.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

KEYS = (("input_ids", "labels"), ("chosen_input_ids", "chosen_labels"), ("rejected_input_ids", "rejected_labels"))


def ask(config: dict[str, Any]) -> dict[str, Any]:
    """One configuration through LLaMA-Factory's own functions, as train/*/workflow.py calls them."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, finetuning_args, _ = get_train_args(config)
    modules = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(modules["tokenizer"], data_args)
    stage = "rm" if finetuning_args.stage == "dpo" else finetuning_args.stage
    rows = get_dataset(template, model_args, data_args, training_args, stage=stage, **modules)["train_dataset"]
    samples: list[list[list[int]]] = []
    for row in rows:
        if "labels" not in row and "input_ids" in row:  # pre-training has no labels here
            row["labels"] = row["input_ids"]
        samples += [[row[ids], row[labels]] for ids, labels in KEYS if ids in row]
    return {"samples": samples}


def allow_torchvision() -> None:
    """torchvision whose compiled part is built for another torch: operators are not declared that are not there; images need none."""
    sys.modules["torchvision._meta_registrations"] = ModuleType("torchvision._meta_registrations")


def main(jobs: str, answers: str) -> None:
    """Answer every job."""
    allow_torchvision()
    from copy import deepcopy

    from llamafactory.data import template

    fresh = deepcopy(template.TEMPLATES)
    todo = json.loads(Path(jobs).read_text(encoding="utf-8"))
    with Path(answers).open("w", encoding="utf-8") as out:
        for job in todo:
            template.TEMPLATES.clear()  # get_template_and_fix_tokenizer writes options into the shared template
            template.TEMPLATES.update(deepcopy(fresh))
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    answer = ask(job)
            except BaseException as error:
                cause = error.__cause__ or error
                answer = {"error": f"{type(cause).__name__}: {cause}"[:300]}
            out.write(json.dumps(answer) + "\n")
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
