"""What the shape of a log says of its origin: LLaMA-Factory's own names, and the training stage by the metrics that only it logs."""

from __future__ import annotations

import re

_OF_LLAMAFACTORY = re.compile(
    r"(?:llamafactory|llmtuner)[./](?:cli|launcher|train|hparams|data|model|extras|webui|api|chat|eval)\b|llamafactory-cli|\[llamafactory\]"
)
_STAGE_OF_MODULE = re.compile(r"(?:llamafactory|llmtuner)[./]train[./](pt|sft|rm|ppo|dpo|kto|orpo)\b")


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
    low = text.lower()
    if "rewards/chosen" in low:
        return "kto" if re.search(r"['\"/]kl['\"]\s*:|^- kl:", low, re.M) else "dpo"
    return "ppo" if re.search(r"['\"]reward['\"]\s*:\s*-?\d", low) and "rewards/" not in low else None
