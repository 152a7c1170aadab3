"""Find a model's shape by name or path: in its config.json or in the table of known models."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from doctor.errors import DoctorError
from doctor.memory import local_config
from doctor.memory.local_config import NOWHERE, Place
from doctor.memory.model_config import from_config
from doctor.memory.shapes import Shape, UnknownShape
from doctor.support import cache
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder
from doctor.words import catalogue


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of rules/models.yaml: repositories with the same shape, their published size in billions, the source of the sizes."""

    names: list[str]
    params_b: float
    source: str
    shape: Shape


def lookup(name: str, place: Place = NOWHERE) -> Shape:
    """The shape for a `model_name_or_path`: its config.json on this machine (folder or hub cache), else rules/models.yaml.

    A name is matched in this order; a size that is not listed is never replaced by a similar size:

    1. repository id,
    2. last part of the repository id,
    3. last part without words that keep the shape (Instruct, Chat, GPTQ ...),
    4. as a fine-tune named after its base model.

    Raises UnknownShape.
    """
    local = _local_config(name, place)
    if local is not None:
        return local
    entry = _listed(name) or base_of(name)
    if entry is None:
        raise UnknownShape(catalogue.text("errors.unknown_model", model=name))
    quantized = name_quantisation(repository_tail(name))
    return msgspec.structs.replace(entry.shape, quantized=quantized) if quantized else entry.shape


def _listed(name: str) -> KnownModel | None:
    tail = repository_tail(name)
    by_name, by_tail = _by_name()
    return by_name.get(name.lower()) or by_tail.get(tail.lower()) or _by_family().get(family(tail) or tail)


OTHER_SHAPE = re.compile(r"pro|moe|prun|merge|up|layer|expan|franken|depth|vl|vision|audio|omni|speech|mini|small|distill|\d\.?\d*b\b|x\d")
"""Words in a model name that suggest a shape other than the base model's."""


def base_of(name: str) -> KnownModel | None:
    """The known model a fine-tune is named after (`Qwen2.5-7B-my-sft`); None if the rest of the name suggests another shape."""
    tail = repository_tail(name).lower()
    if _listed(name) is not None:
        return None
    for end in range(len(tail) - 1, 0, -1):
        if tail[end] in "-_." and family(tail[:end]):
            entry = _listed(tail[:end])
            if entry is not None:
                return None if OTHER_SHAPE.search(tail[end:]) else entry
    return None


def repository_tail(name: str) -> str:
    """The last part of a repository id or path; also for cache folders of Hugging Face and ModelScope."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    for part in parts:
        if part.startswith("models--"):
            return part.rpartition("--")[2]
    return parts[-1].replace("___", ".") if parts else name


def _local_config(name: str, place: Place) -> Shape | None:
    file = local_config.find(name, place)
    try:
        return from_config(read_json(file)) if file is not None else None
    except DoctorError:
        return None


def read_json(file: Path) -> dict[str, Any]:
    """Read a config.json. Raises DoctorError if it is not JSON, not a mapping, or too large."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise DoctorError(catalogue.text("errors.model_too_large", path=file))
        raw = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DoctorError(catalogue.text("errors.no_json", path=file, reason=error)) from error
    if not isinstance(raw, dict):
        raise DoctorError(catalogue.text("errors.no_mapping", path=file, found=type(raw).__name__))
    return raw


MAX_CONFIG_BYTES = 4_000_000
"""Size limit of a model's config.json; a judgement, as real ones have a few KB."""

SAME_SHAPE = re.compile(
    r"[-_.](?:instruct|it|chat|base|hf|pt|gptq|awq|int[48]|bnb|4bit|8bit|nf4|g128|bf16|fp16|gguf|unsloth|dpo|sft|preview|thinking|"
    r"v\d+(?:\.\d+)*|20\d\d|2[3-6]\d\d|0[1-9]\d\d|1[0-2]\d\d)(?=[-_.]|$)",
    re.IGNORECASE,
)
"""Parts of a name about training or storage, not size. Used only if no exact name matches, since versions are dropped too."""


def family(tail: str) -> str:
    """A repository's last part without words that keep the shape: `Qwen2.5-7B-Instruct-GPTQ-Int4` -> `qwen2.57b`.

    Empty if no size is left (`DeepSeek-V3`); such a name must match exactly.
    """
    text = tail.lower().removeprefix("meta-")
    while (shorter := SAME_SHAPE.sub("", text)) != text:
        text = shorter
    return re.sub(r"[^a-z0-9.]", "", text) if re.search(r"\d[bm](?![a-z])", text) else ""


def name_quantisation(tail: str) -> str:
    """The quantisation in a model's name: gptq4, gptq8, awq4, nf4 or empty."""
    text = tail.lower()
    if "gptq" in text:
        return "gptq8" if "int8" in text or "8bit" in text else "gptq4"
    if "awq" in text:
        return "awq4"
    return "nf4" if "bnb-4bit" in text else ""


@functools.cache
def _by_name() -> tuple[dict[str, KnownModel], dict[str, KnownModel]]:
    """Entries by repository id, and by its last part."""
    by_name: dict[str, KnownModel] = {}
    by_tail: dict[str, KnownModel] = {}
    for entry in known_models():
        for name in entry.names:
            by_name.setdefault(name.lower(), entry)
            by_tail.setdefault(name.rpartition("/")[2].lower(), entry)
    return by_name, by_tail


@functools.cache
def _by_family() -> dict[str, KnownModel]:
    """Entries by family; 10 ms, which an exact name does not need."""
    families: dict[str, KnownModel] = {}
    for entry in known_models():
        for name in entry.names:
            if of := family(name.rpartition("/")[2]):
                families.setdefault(of, entry)
    return families


@functools.cache
def known_models() -> tuple[KnownModel, ...]:
    """All entries of rules/models.yaml. Raises DoctorError if the file is invalid."""
    import yaml

    path = rules_folder() / "models.yaml"
    try:
        return tuple(convert(cache.load_yaml(path), list[KnownModel]))
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise DoctorError(f"{path}: cannot be read: {error}") from error
