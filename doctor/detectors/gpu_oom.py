"""`gpu_oom`: a GPU ran out of memory; the message's numbers, the failing frames and the config as facts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from doctor.config.options import effective
from doctor.core.events import Crash, Event, LogLine
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.detectors.oom_message import CONTINUATION_WORDS, FINAL_WORDS, GIB, SHARES, find_head, is_of_nccl, message_facts
from doctor.detectors.oom_place import ENGINE_WORDS, place_of
from doctor.rulebook.findings import Evidence, Match

LARGEST_VOCABULARY = 262_144
"""Gemma's; no popular model has more tokens, so no logits are larger than batch x length x this x 4 bytes."""
SAVING_WORDS = ("after returning from state_dict() call", "Failed to clone() tensor with name")
"""torch's FSDP says so in a warning, without a traceback, where the whole state dict does not fit."""
PHASE_OF_PLACE = {
    "merge": "export",
    "save": "save",
    "generate": "predict",
    "gather": "eval",
    "eval": "eval",
    "load": "load",
    **dict.fromkeys(("flat_buffer", "optimizer", "vision", "logits", "backward", "forward"), "train"),
}
"""Place of the failure -> phase of the run."""

NUMBERS = ("wanted_gib", "total_gib", "free_gib", "allocated_gib", "reserved_gib", "process_gib", "others_gib", "gpu")
"""Facts with numbers of the message, in GiB except for `gpu` (index)."""

FROM_CONFIG = ("weights_gib", "weights_share", "request_over_logits", "request_is")
"""Facts that need the config."""


class GpuOom(DetectorBase):
    """No parameters: all rules about GPU memory share an instance and test its facts under `where`.

    Facts of the message: `device` (cuda, hip, npu, xpu, mps, ...), `generation` (numbers | legacy | bare), `gpu` (torch's number, with
    nvidia-smi's where it differs), `wanted_gib`,
    `total_gib`, `free_gib`, `allocated_gib` (live tensors of this process), `reserved_gib` (kept by PyTorch, unused), `process_gib`
    (this process), `others_gib` (memory of other processes); `wanted_share`, `allocated_share`, `reserved_share` and
    `others_share` of the card; `reserved_over_wanted` (how many times the request the unused part is).
    `other_pid` and `other_gib`: the largest other process that the message lists, if it holds more than a context; `other_enough`: with
    its memory the request would have fitted.
    Facts of the traceback: `place` (engine: vLLM or SGLang; load, reference, pinned, forward, logits, vision, backward,
    optimizer, flat_buffer, eval, gather, generate, save, merge) and `phase` (the place's, else the reader's).
    Facts that need the config: `weights_gib` (16-bit or quantised, by the run's parameter count or the size in the model's name),
    `weights_share` (of all GPUs: the number the run reports, at least the number of GPUs with messages),
    `request_over_logits` (the request is more than batch x length x the largest vocabulary x 4 bytes),
    `request_is` (logits | parameters).
    `nccl_alone`: whether only NCCL spoke of it, whose own buffers are small: the card may have room.
    `multi_gpu` is true if a second rank or GPU is seen. The messages of an attempt form a single match with their combined facts.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (LogLine, Crash)
    needs: tuple[str, ...] = ("text",)
    facts: tuple[str, ...] = (
        "device",
        "generation",
        "place",
        "phase",
        "multi_gpu",
        "nccl_alone",
        "whole_state_dict",
        *NUMBERS,
        *SHARES,
        "reserved_over_wanted",
        "other_pid",
        "other_gib",
        "other_enough",
        *FROM_CONFIG,
    )
    literals: tuple[str, ...] = (
        "out of memory",
        "OutOfMemory",
        "OUT_OF_MEMORY",
        "ALLOC_FAILED",
        "cudaErrorMemoryAllocation",
        "would exceed allowed memory",
        "Failed to CUDA calloc",
        "error code is 207001",
        "No executable batch size",
        *CONTINUATION_WORDS,
    )

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Any]] = {}
        self._evidence: dict[int, Evidence] = {}
        self._open: dict[int | None, tuple[str, int]] = {}

    def feed(self, event: LogLine | Crash, run: Run) -> Iterator[Match]:
        if isinstance(event, Crash) and not event.exception:
            # the traceback of a message that a logger printed first, or one that is cut off: it may tell the place
            if event.attempt in self._known and place_of(event.frames) is not None:
                yield self._match(event, run, {}, f"{event.frames[-1].file}:{event.frames[-1].function}: {event.frames[-1].code}")
            return
        text, head, left = event.text[:8000], find_head(event.text), 6
        if head is None:
            if not isinstance(event, LogLine) or event.rank not in self._open:
                return
            joined, left = self._open.pop(event.rank)
            text = f"{joined} {text.strip(' │|')}"
            head = find_head(text)
            if head is None:
                return
        text = re.sub(r"[ \t\n]+", " ", text)
        if isinstance(event, LogLine) and left and not any(mark in text for mark in FINAL_WORDS):
            self._open[event.rank] = (text, left - 1)
        yield self._match(event, run, {**message_facts(text, head), "nccl_alone": is_of_nccl(head)}, event.text[:2000])

    def _match(self, event: LogLine | Crash, run: Run, fresh: dict[str, Any], quote: str) -> Match:
        known = self._known.setdefault(event.attempt, {})
        if len(self._known) > 256:
            self._known.pop(next(iter(self._known)))
        if fresh.get("wanted_gib") == known.get("wanted_gib", fresh.get("wanted_gib")):
            known.update(fresh, nccl_alone=known.get("nccl_alone", True) and fresh.get("nccl_alone", False))
        _add_place(known, event)
        known["cards_seen"] = max(known.get("cards_seen", 1), (event.rank or 0) + 1, fresh.get("gpu", 0) + 1)
        if (event.rank or 0) > 0 or fresh.get("gpu", 0) > 0 or fresh.get("siblings", 0) > 1 or run.facts.get("world_size", 1) > 1:
            known["multi_gpu"] = True
        facts = {**known, **_config_facts(known, run)}
        if "gpu" in facts:
            facts["gpu"] = card_name(facts["gpu"], run)
        evidence = Evidence(event.where, quote)
        first = self._evidence.setdefault(event.attempt, evidence)
        pieces = (evidence,) if first.where == evidence.where else (evidence, first)
        return Match(evidence=pieces, facts=facts, rank=event.rank, attempt=event.attempt, time=event.time)


def card_name(gpu: int, run: Run) -> int | str:
    """torch's number of a GPU, which counts the visible ones, with nvidia-smi's (amd-smi's) behind it where that is another one."""
    indices = run.facts.get("gpu.indices")
    physical = indices[gpu] if isinstance(indices, list) and gpu < len(indices) else gpu
    return gpu if physical == gpu else f"{gpu} (smi: {physical})"


def _add_place(known: dict[str, Any], event: LogLine | Crash) -> None:
    place = place_of(event.frames) if isinstance(event, Crash) else "save" if any(said in event.text for said in SAVING_WORDS) else None
    if any(said in event.text for said in SAVING_WORDS):
        known["whole_state_dict"] = True
    if any(word in event.text for word in ENGINE_WORDS):
        place = "engine"
    if place is not None and (known.get("place") in (None, "forward", "backward")):
        known["place"] = place
    phase_of_place = PHASE_OF_PLACE.get(known.get("place", ""))
    phase = phase_of_place or (event.phase if event.phase != "start" else None) or known.get("phase")
    if phase is not None:
        known["phase"] = phase


def _config_facts(known: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Facts that combine the message with the config; empty if no config is known."""
    if not run.config:
        return {}
    facts: dict[str, Any] = {}
    config = effective(run.config, run.facts)
    weights = _weights_gib(run, config)
    if weights is not None:
        facts["weights_gib"] = round(weights, 1)
        if "total_gib" in known:
            facts["weights_share"] = round(weights / known["total_gib"] / max(_cards(run), known.get("cards_seen", 1)), 3)
    wanted = known.get("wanted_gib")
    tokens = _most_tokens(config, known.get("phase"))
    if wanted is not None and tokens is not None:
        facts["request_over_logits"] = wanted * GIB > tokens * LARGEST_VOCABULARY * 4
        facts.update(_request_is(wanted * GIB, tokens, run))
    return facts


def _weights_gib(run: Run, config: Mapping[str, Any]) -> float | None:
    """Size of the loaded weights: the parameters the run tells, else the size in the model's name ("72B", "8x7B"), 2 bytes each."""
    parameters = run.facts.get("model.params")
    name = str(config.get("model_name_or_path") or "").rstrip("/").rpartition("/")[2]
    if not isinstance(parameters, int | float):
        found = re.search(r"(?<![A-Za-z\d.])(?:(\d+)x)?(\d+(?:\.\d+)?)[bB](?![A-Za-z])", name)
        if not found:
            return None
        parameters = float(found[2]) * float(found[1] or 1) * 1e9
    bits = config.get("quantization_bit")
    width = {4: 0.6, 8: 1.1}.get(bits if isinstance(bits, int) else 0, 0.6 if re.search(r"(?i)int4|awq|gptq|4bit|bnb", name) else 2)
    return float(parameters) * width / GIB


def _cards(run: Run) -> int:
    count = run.facts.get("world_size") or run.facts.get("gpu.count") or 1
    return int(count) if isinstance(count, int | float) and count > 0 else 1


def _most_tokens(config: Mapping[str, Any], phase: str | None) -> int | None:
    """Most tokens one forward pass can hold: batch x cutoff, twice that for pairs."""
    batch = config.get("per_device_eval_batch_size" if phase in ("eval", "predict") else "per_device_train_batch_size")
    length = config.get("cutoff_len")
    if not isinstance(batch, int) or not isinstance(length, int):
        return None
    return batch * length * (2 if config.get("stage") in ("dpo", "rm", "kto") else 1)


def _request_is(wanted: float, tokens: int, run: Run) -> dict[str, str]:
    """Whether the request is the size of the logits or of the whole model (within the rounding of two printed decimals)."""
    shape = run.facts.get("model.config")
    vocabulary = shape.get("vocab_size") if isinstance(shape, dict) else None
    sizes: dict[float, str] = {}
    for parameters in (run.facts.get("model.params"), run.facts.get("model.trainable_params")):
        if isinstance(parameters, int) and parameters > 10**8:
            sizes.update({parameters * width / cards: "parameters" for width in (2, 4) for cards in (1, _cards(run))})
    if isinstance(vocabulary, int):
        sizes.update({tokens * vocabulary * width: "logits" for width in (2, 4)})
    return next(({"request_is": name} for size, name in sizes.items() if abs(wanted - size) <= 0.02 * size), {})
