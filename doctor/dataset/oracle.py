"""The child of doctor/dataset/ask.py: the installed LLaMA-Factory itself loads, converts and encodes the data sets.

Reads one request from standard input: MessagePack of {"config": options, "cutoffs": [tokens, ...], "gib": limit}; answers with MessagePack
of {"lengths": [[[tokens, trained tokens], ...] for each cutoff]} or {"error": why}. A pair is two neighbouring entries.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import Any

import msgspec

from doctor.support import subprocesses
from doctor.support.decoding import unpack

_COLUMNS = (("input_ids", "labels"), ("chosen_input_ids", "chosen_labels"), ("rejected_input_ids", "rejected_labels"))
_IGNORE = -100


def main() -> None:
    """Answer one request."""
    requests, answers = subprocesses.streams()
    request = unpack(requests.read(), dict[str, Any])
    answer: dict[str, Any]
    try:
        _limit_memory(int(request["gib"]))
        answer = {"lengths": _lengths(request["config"], request["cutoffs"])}
    except BaseException as error:  # whatever LLaMA-Factory raises, SystemExit included, is the answer
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    with contextlib.suppress(BrokenPipeError):
        answers.write(msgspec.msgpack.encode(answer))
        answers.flush()
    os._exit(0)  # threads of the libraries do not hold the process


def _limit_memory(gib: int) -> None:
    """No more private memory than this, where the system can limit it."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (gib << 30, gib << 30))


def _lengths(config: dict[str, Any], cutoffs: list[int]) -> list[list[list[int]]]:
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    with tempfile.TemporaryDirectory() as place:
        os.environ["HF_DATASETS_CACHE"] = place
        os.environ["LLAMAFACTORY_VERBOSITY"] = "ERROR"
        return [_one(config, cutoff, place) for cutoff in cutoffs]


def _one(config: dict[str, Any], cutoff: int, place: str) -> list[list[int]]:
    """Tokens and trained tokens of every training sequence, in order, as train/*/workflow.py builds them."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    given = {**config, "cutoff_len": cutoff, "output_dir": f"{place}/out", "do_train": True, "overwrite_cache": True, "report_to": "none"}
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(given)
    modules = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(modules["tokenizer"], data_args)
    stage = "rm" if finetuning_args.stage == "dpo" else finetuning_args.stage
    rows = get_dataset(template, model_args, data_args, training_args, stage=stage, **modules)["train_dataset"]
    out = []
    for row in rows:
        for ids, labels in _COLUMNS:
            if ids in row:
                marks = row.get(labels, row[ids])
                out.append([len(row[ids]), len(marks) - marks.count(_IGNORE)])
    return out


if __name__ == "__main__":
    main()
