"""The vision and audio towers in a config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctor.memory.keys import given_or_none
from doctor.memory.shapes import Vision


def vision(raw: Mapping[str, Any]) -> Vision | None:
    """The vision tower of a config: attention and MLP per block, patch embedding, and a two-layer projector."""
    tower = _of(raw, "vision_config")
    if tower is None:
        return None
    hidden, layers = given_or_none(tower, "hidden_size", "embed_dim", "width"), given_or_none(tower, "num_hidden_layers", "depth", "layers")
    if hidden is None or layers is None:
        return None
    hidden = given_or_none(tower, "embed_dim") or hidden
    layers += given_or_none(tower, "num_global_layers") or 0  # Llama 3.2's second stage
    intermediate = given_or_none(tower, "intermediate_size") or 4 * hidden
    gated = tower.get("hidden_act") == "silu" or tower.get("model_type") in ("pixtral", "gemma4_vision")
    block = 4 * hidden * hidden + (3 if gated else 2) * hidden * intermediate
    patch, merge = given_or_none(tower, "patch_size", "spatial_patch_size") or 14, given_or_none(tower, "spatial_merge_size") or 1
    projector = (merge * merge * hidden) ** 2 + merge * merge * hidden * (given_or_none(tower, "out_hidden_size") or hidden)
    return Vision(layers * block + 3 * patch * patch * hidden + projector, hidden, layers, intermediate, patch, merge)


FIXED = {"gemma3n": 1_014_899_808, "phi4mm": 1_738_500_000, "phi4_multimodal": 907_982_272}
"""Model type -> parameters of the towers whose sizes its config does not give: published total less the language model's."""


def audio(raw: Mapping[str, Any]) -> float:
    """Parameters of a Whisper-like audio encoder (Qwen's Omni models; modeling_qwen2_5_omni.py): attention and MLP per layer, two
    convolutions, a projection. 0 where there is none; another encoder's size is not read.
    """
    if raw.get("model_type") in FIXED:
        return float(FIXED[raw["model_type"]] - (seen.params if (seen := vision(raw)) else 0))
    tower = _of(raw, "audio_config")
    if tower is None:
        return 0.0
    width, layers, wide = given_or_none(tower, "d_model"), given_or_none(tower, "encoder_layers"), given_or_none(tower, "encoder_ffn_dim")
    if width is None or layers is None or wide is None:
        return 0.0
    convolutions = 3 * width * (given_or_none(tower, "num_mel_bins") or 128) + 3 * width * width
    return float(layers * (4 * width * width + 2 * width * wide) + convolutions + width * (given_or_none(tower, "output_dim") or width))


def _of(raw: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """A tower's config, also where Qwen's Omni models keep it."""
    for holder in (raw, raw.get("thinker_config")):
        if isinstance(holder, Mapping) and isinstance(holder.get(key), Mapping):
            found: Mapping[str, Any] = holder[key]
            return found
    return None
