"""Lets LLaMA-Factory 0.9.5's own PPO loop run: it asks for trl 0.9.6, which lacks names that its other stages import, and for names that
transformers 5 has dropped. What is lent here is never called, or empty; found by Python through PYTHONPATH."""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any


class Finder(importlib.abc.MetaPathFinder):
    """Just before the module that imports every trainer."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "llamafactory.train.tuner":
            sys.meta_path.remove(self)
            lend()


def lend() -> None:
    from transformers import PreTrainedTokenizerBase, Trainer
    from trl.models import utils

    utils.prepare_deepspeed = utils.prepare_fsdp = None
    PreTrainedTokenizerBase.additional_special_tokens_ids = property(lambda tokenizer: [])
    Trainer.processing_class = property(lambda trainer: trainer.__dict__.get("processing_class"), _set)


def _set(trainer: Any, value: Any) -> None:
    trainer.__dict__["processing_class"] = value


sys.modules.update({"bitsandbytes": None, "deepspeed": None})
sys.meta_path.insert(0, Finder())
