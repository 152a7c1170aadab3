"""What the shape of a log says of its origin: names of LLaMA-Factory and of others, and the stage by metrics that only it logs."""

from __future__ import annotations

import re
from collections.abc import Collection

_OF_LLAMAFACTORY = re.compile(
    r"(?:llamafactory|llmtuner)[./](?:cli|launcher|train|hparams|data|model|extras|webui|api|chat|eval|v1)\b|llamafactory-cli|\[llamafactory\]"
)
OTHER_TRAINERS = frozenset({"axolotl", "swift", "verl", "openrlhf", "oumi", "torchtune", "lightning", "pytorch_lightning"})
"""Packages that train by themselves and never under LLaMA-Factory."""
OTHER_COMMANDS = frozenset({"swift", "axolotl", "oumi", "xtuner", "trl", "tune"})
"""Programs with commands of their own to train, whose options and defaults are not LLaMA-Factory's; trl's package runs under it as well."""
_STAGE_OF_MODULE = re.compile(r"(?:llamafactory|llmtuner)[./]train[./](pt|sft|rm|ppo|dpo|kto|orpo)\b")
_STAGE_OF_TRAINER = {
    "CustomSeq2SeqTrainer": "sft",
    "CustomDPOTrainer": "dpo",
    "CustomORPOTrainer": "dpo",
    "CustomKTOTrainer": "kto",
    "CustomPPOTrainer": "ppo",
    "PairwiseTrainer": "rm",
}
"""LLaMA-Factory's trainer classes (src/llamafactory/train/*/trainer.py), which warnings of transformers name."""
_STAGE_OF_FOLDER = re.compile(r"(?:^|[/\\])(?:lora|qlora|dora|full|freeze|oft)[/\\](pretrain|pt|sft|reward|rm|ppo|dpo|orpo|kto)[/\\]?$")
_SHORT = {"pretrain": "pt", "reward": "rm", "orpo": "dpo"}
_LOSS = re.compile(r"'(?:train_)?loss':|\btrain_loss\s+=")
_EXAMPLE = "training example:"
"""Heading above the sample that LLaMA-Factory prints (data/loader.py); its field names differ by stage (data/processor/*.py)."""


def is_llamafactory(text: str) -> bool:
    """Whether a log names LLaMA-Factory's command, modules or logger."""
    return _OF_LLAMAFACTORY.search(text) is not None


def stage_of(text: str) -> str | None:
    """The stage by a module of LLaMA-Factory (`llamafactory/train/dpo/`), else by its metrics; None if neither is there.

    trl's preference trainers log `rewards/chosen`; KTO's adds `kl`. trl's PPO loop as LLaMA-Factory runs it logs `reward`. ORPO is the
    stage dpo with `pref_loss: orpo` since 0.8.
    """
    if (found := _STAGE_OF_MODULE.search(text)) is not None:
        return "dpo" if found[1] == "orpo" else found[1]
    if (named := next((stage for name, stage in _STAGE_OF_TRAINER.items() if name in text), None)) is not None:
        return named
    low = text.lower()
    if "rewards/chosen" in low:
        return "kto" if re.search(r"['\"/]kl['\"]\s*:|^- kl:", low, re.M) else "dpo"
    if re.search(r"['\"]reward['\"]\s*:\s*-?\d", low) and "rewards/" not in low:
        return "ppo"
    return _stage_of_example(text)


def _stage_of_example(text: str) -> str | None:
    """The stage by the sample that LLaMA-Factory prints, once a loss without rewards was logged: KTO and PPO print the same as SFT.

    The loss of the closing summary (`train_loss`) is enough: a short run logs no other.
    """
    start = text.find(_EXAMPLE) if is_llamafactory(text) else -1
    if start < 0 or not _LOSS.search(text, start):
        return None
    if "chosen_input_ids:" in text:
        return "rm"
    return "sft" if "label_ids:" in text else "pt"


def stage_of_folder(output_dir: str) -> str | None:
    """The stage by an output folder in the layout of LLaMA-Factory's examples: `saves/MODEL/METHOD/STAGE`."""
    found = _STAGE_OF_FOLDER.search(output_dir)
    return _SHORT.get(found[1], found[1]) if found else None


def stage_of_metrics(names: Collection[str]) -> str | None:
    """The stage by the names of all metrics of a run: trl's preference trainers log `rewards/chosen`, KTO's `kl` as well."""
    if "rewards/chosen" not in names:
        return None
    return "kto" if "kl" in names else "dpo"
