"""Asks the LLaMA-Factory of this environment for the lengths: whatever template, tools and media, with limits of time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.findings import Collector, Place
from doctor.dataset.numbers import Tally
from doctor.dataset.sequences import Options, options_of
from doctor.support import subprocesses
from doctor.support.decoding import unpack
from doctor.support.process_tree import end_group

SECONDS = 900
"""How long LLaMA-Factory may take: importing it takes up to a minute, a million samples ten."""
GIB = 32
_UNCUT = 10_000_000
"""A cutoff_len that cuts nothing."""
_PASSED = (
    "model_name_or_path", "cache_dir", "template", "dataset", "dataset_dir", "media_dir", "train_on_prompt", "mask_history", "max_samples",
    "stage", "tool_format", "default_system", "enable_thinking", "preserve_thinking", "use_fast_tokenizer", "split_special_tokens",
    "add_tokens", "add_special_tokens", "preprocessing_batch_size", "preprocessing_num_workers", "image_max_pixels", "image_min_pixels",
    "image_do_pan_and_scan", "crop_to_patches", "video_max_pixels", "video_min_pixels", "video_fps", "video_maxlen", "use_audio_in_video",
    "audio_sampling_rate",
)  # fmt: skip
"""Options that shape a sequence. `trust_remote_code` is not one: looking at data runs no code of a model."""


class Answer(msgspec.Struct):
    """Tokens and trained tokens of each sequence at cutoff_len, and tokens without it; or why there are none."""

    kept: list[tuple[int, int]] = []
    whole: list[int] = []
    error: str = ""


def ask(config: Mapping[str, Any], folder: Path, *, seconds: float = SECONDS) -> Answer:
    """The lengths of the training samples, in LLaMA-Factory's order."""
    options = options_of(config)
    given = {name: config[name] for name in _PASSED if config.get(name) is not None}
    for name, default in (("dataset_dir", "data"), ("media_dir", None), ("model_name_or_path", None)):
        path = given.get(name, default)
        if isinstance(path, str) and (name == "dataset_dir" or (folder / path).exists()):
            given[name] = str((folder / path).resolve())
    given |= {"finetuning_type": "lora", "packing": False}
    request = msgspec.msgpack.encode({"config": given, "cutoffs": [options.cutoff_len, _UNCUT], "gib": GIB})
    answer = _run(request, seconds)
    if "error" in answer:
        return Answer(error=str(answer["error"]))
    kept, whole = answer["lengths"]
    return Answer([(tokens, trained) for tokens, trained in kept], [tokens for tokens, _ in whole])


def _run(request: bytes, seconds: float) -> dict[str, Any]:
    """The child's answer; it is killed with all its workers when the time is over."""
    process = subprocesses.start("doctor.dataset.oracle", session=os.name == "posix")
    try:
        out, _ = process.communicate(request, timeout=seconds)
        found = unpack(out, dict[str, Any])
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {seconds:.0f} seconds"}
    except (OSError, msgspec.DecodeError):
        return {"error": f"LLaMA-Factory ended without an answer (exit code {process.poll()})"}
    finally:
        if os.name == "posix":
            end_group(process.pid, signal.SIGKILL)
        process.kill()
        process.communicate()
    return found


def tally(answer: Answer, options: Options, places: list[Place], collector: Collector, dataset: str, *, tail: int) -> Tally | None:
    """The figures of an answer; None if it has another number of samples than were read (`places`). `tail`: trained end tokens."""
    each = 2 if options.stage in ("rm", "dpo") else 1
    if len(answer.kept) != len(answer.whole) or len(answer.kept) != each * len(places):
        return None
    made = Tally(options)
    for number, place in enumerate(places):
        kept, whole = answer.kept[each * number : each * (number + 1)], answer.whole[each * number : each * (number + 1)]
        cut = sum(max(0, before - tokens) for before, (tokens, _) in zip(whole, kept, strict=True))
        lost = cut > 0 and any(trained <= tail for _, trained in kept) and options.stage not in ("pt", "ppo")
        for kind, here in (("cut", bool(cut)), ("answer_lost", lost)):
            if here:
                collector.add_at(kind, dataset, "train", msgspec.structs.replace(place, detail=f"{max(whole)} tokens"))
        made.add(
            max(whole), max(tokens for tokens, _ in kept), cut=cut, lost=lost, trained=sum(trained for _, trained in kept), place=place
        )
    return made
