"""Whether a remedy may be offered at all for a finding: asked once, before anything else is asked of a remedy.

A remedy that is not admitted is in no patch and under no heading. Everything here follows from the finding and from whose program ran,
not from the configuration; what that decides is planner/situation.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from doctor.config.options import table
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

CERTAIN_ENOUGH = 0.5
"""Below this confidence a cause that was only inferred is no reason to change the training; a symptom that was measured is one."""
_OF_LLAMAFACTORY = re.compile(r"(?i)your LLaMA-Factory|LLaMA-Factory's folder|(?:update|install) LLaMA-Factory|dataset_info\.json")
"""What only somebody who runs LLaMA-Factory has; a sentence for both cases names it in another way."""

_ZERO = re.compile(r"(?i)\bzero-?[123]\b|\bzero stage|deepspeed")
_FSDP = re.compile(r"(?i)\bfsdp|fullyshardeddataparallel")
_OF_CUDA = re.compile(r"\b(?:one|another|your|this|same|the) CUDA\b|\bCUDA (?:version|toolkit|build|wheel)|nvidia-smi|NVIDIA driver|NCCL_")
"""What an Ascend NPU has no use for."""
_NPU = re.compile(r"torch_npu|libtorch_npu|\bCANN\b|\bAscend\b|\bnpu:\d", re.IGNORECASE)


def runs_on_npu(facts: Mapping[str, Any]) -> bool:
    """Whether the run is known to use an Ascend NPU."""
    return facts.get("device") == "npu" or bool(facts.get("versions.torch_npu"))


def shards_by_fsdp(config: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether the run is known to shard its model with FSDP, and not with DeepSpeed."""
    kind = str(facts.get("accelerate.distributed_type") or "").upper()
    deepspeed = config.get("deepspeed") or facts.get("deepspeed.stage") is not None or kind == "DEEPSPEED"
    return not deepspeed and (kind == "FSDP" or bool(config.get("fsdp")))


def refusal(remedy: Remedy, finding: Finding, *, foreign: bool, fsdp: bool = False, npu: bool = False) -> Text | None:
    """Why the remedy must not be offered; None if it may be.

    `foreign`: the program that failed is known to be another one than LLaMA-Factory. `fsdp`: the run is known to shard with FSDP; an
    error whose lines name FSDP alone says so too. `npu`: it runs on an Ascend NPU, as an error of torch_npu shows by itself.
    """
    if (fsdp or _names_fsdp_alone(finding)) and _of_deepspeed(remedy):
        return catalogue.text("planner.other_sharding")
    if (npu or _names_npu(finding)) and _OF_CUDA.search(remedy.text.en):
        return catalogue.text("planner.other_device")
    if remedy.named is not None and not any(re.search(remedy.named, text) for text in _told(finding)):
        return catalogue.text("planner.not_named")
    if foreign and of_llamafactory(remedy):
        return catalogue.text("planner.other_program")
    asked_for = any(one.name in (op.set or {}) for one in finding.says for op in remedy.patch)
    inferred = "uncaught_exception" in finding.rule.when and not asked_for  # what the message itself asks for is no guess of ours
    if inferred and finding.confidence < CERTAIN_ENOUGH and remedy.effect == "changes_training":
        return catalogue.text("planner.only_a_guess")
    return None


def of_llamafactory(remedy: Remedy) -> bool:
    """Whether the remedy is something to do in LLaMA-Factory's own folder or files.

    Options that only LLaMA-Factory has still say what to change in another program; its versions say nothing there. A command of such a
    remedy is left out by the report.
    """
    return not _changes_an_option(remedy) and _OF_LLAMAFACTORY.search(remedy.text.en) is not None


def _of_deepspeed(remedy: Remedy) -> bool:
    """Whether the remedy is one of DeepSpeed's alone: a sentence for both kinds of sharding names FSDP too."""
    return _ZERO.search(remedy.text.en) is not None and _FSDP.search(remedy.text.en) is None


def _names_fsdp_alone(finding: Finding) -> bool:
    told = "\n".join(piece.text for piece in finding.evidence)
    return _FSDP.search(told) is not None and _ZERO.search(told) is None


def _names_npu(finding: Finding) -> bool:
    return any(_NPU.search(piece.text) for piece in finding.evidence)


def _changes_an_option(remedy: Remedy) -> bool:
    return any(key in table() for op in remedy.patch for key in (*(op.set or {}), *(op.scale or {}), *(op.unset or ())))


def _told(finding: Finding) -> list[str]:
    """The evidence and the facts that were taken from it."""
    return [*(piece.text for piece in finding.evidence), *map(str, finding.first.facts.values())]
