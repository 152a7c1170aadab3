"""Which phase of a run a Python function or a line of its log belongs to: one table for the live callback and the readers.

Imports only the standard library: the live callback loads it inside the training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

Phase = Literal["start", "tokenise", "load", "train", "eval", "save", "predict", "export", "end"]
"""What the run is doing. Known from marker lines and from the functions of a traceback, never from the step counter."""

PHASES: tuple[Phase, ...] = get_args(Phase)

_FUNCTIONS: dict[Phase, tuple[str, ...]] = {
    # llamafactory/hparams/parser.py
    "start": (r"_parse_args", r"_parse_(?:train|infer|eval)(?:_\w+)?_args", r"get_(?:train|infer|eval|ray)_args", r"read_args"),
    # llamafactory/data: loader.py, aligner.py (0.7 to 0.9.1), converter.py (align_dataset), template.py (called right before get_dataset);
    # datasets.load_dataset, the builders that it runs, and Dataset.map; trl's trainers tokenise in _prepare_dataset.
    # Not preprocess_logits_for_metrics: the evaluation loop calls it.
    "tokenise": (
        r"get_dataset", r"_get_merged_dataset", r"_load_single_dataset", r"_get_preprocessed_dataset", r"preprocess_(?!logits)\w+",
        r"align_dataset", r"convert_(?:alpaca|sharegpt|openai)\w*", r"get_template_and_fix_tokenizer", r"load_dataset", r"_map_single",
        r"_prepare_dataset", r"_prepare_split(?:_single)?", r"download_and_prepare",
    ),
    # llamafactory/model: loader.py, adapter.py, patcher.py, quantization.py, valuehead.py; llamafactory/train/trainer_utils.py;
    # transformers from_pretrained and what it calls in 4.x and 5.x; Trainer._load_from_checkpoint and torch's load_state_dict (resuming
    # restores weights and optimizer with them); peft's load_adapter.
    "load": (
        r"load_model", r"load_tokenizer", r"load_config", r"init_adapter", r"patch_config", r"patch_model", r"configure_quantization",
        r"load_valuehead_params", r"create_ref_model", r"create_reward_model", r"from_pretrained", r"_load_pretrained_model",
        r"_load_state_dict_into\w*", r"convert_and_load\w*", r"_finalize_model_loading", r"load_state_dict", r"_load_from_checkpoint",
        r"load_adapter",
    ),
    # transformers.Trainer; llamafactory/train/ppo/trainer.py; DeepSpeed's and Lightning's optimizer step.
    "train": (r"train", r"_inner_training_loop", r"training_step", r"ppo_train", r"_?optimizer_step"),
    # transformers.Trainer. The loops and prediction_step serve evaluate() and predict(); see _OUTER.
    "eval": (r"_?evaluate", r"evaluation_loop", r"prediction_loop", r"prediction_step"),
    "predict": (r"predict",),
    # transformers.Trainer; save_pretrained of models and peft; DeepSpeed's engine (save_checkpoint, save_16bit_model); torch.save (_save).
    "save": (
        r"_?save_checkpoint", r"_save", r"save_model", r"save_state", r"save_pretrained", r"_save_optimizer_and_scheduler",
        r"save_16bit_model",
    ),
    # llamafactory/train/tuner.py; it calls load_model (phase load) and save_pretrained (see _OUTER).
    "export": (r"export_model",),
}  # fmt: skip
"""Phase -> functions (regular expressions of whole names) that only run in it, by the library that defines them."""

_OUTER: dict[Phase, Phase] = {"eval": "predict", "save": "export"}
"""A function of the first phase belongs to the second where a function of the second called it.

Trainer.predict() runs evaluation_loop() and prediction_step(); export_model() writes with save_pretrained().
"""

MARKERS: dict[str, Phase] = {
    "distributed tasks at": "start",
    "Process rank:": "start",
    "Loading dataset ": "tokenise",
    "Converting format of dataset": "tokenise",
    "Running tokenizer on dataset": "tokenise",
    "Generating train split": "tokenise",
    "KV cache is disabled": "load",
    "loading weights file": "load",
    "Loading checkpoint shards": "load",
    "Loading weights": "load",
    "Quantizing model to": "load",
    "Instantiating ": "load",
    "***** Running training *****": "train",
    "***** Running Evaluation *****": "eval",
    "***** Running evaluation *****": "eval",
    "***** Running Prediction *****": "predict",
    "Saving model checkpoint to": "save",
    "Training completed. Do not forget to share": "end",
    "***** train metrics *****": "end",
    "***** eval metrics *****": "end",
    "Saved merged model": "export",
}
"""Text that a log line contains -> the phase that begins with the line."""


def phase_of(functions: Sequence[str]) -> Phase | None:
    """The phase of a stack of function names, outermost first: that of the innermost function in the table, as `_OUTER` corrects it.

    Names may be qualified (`Trainer.train`). None where no function of the stack is in the table.
    """
    found: Phase | None = None
    for name in reversed(functions):
        phase = _phase(name.rpartition(".")[2])
        if found is None:
            found = phase
        elif phase is not None and phase == _OUTER.get(found):
            return phase
    return found


@lru_cache(maxsize=4096)
def _phase(name: str) -> Phase | None:
    return next((phase for phase, patterns in _FUNCTIONS.items() if any(re.fullmatch(pattern, name) for pattern in patterns)), None)
