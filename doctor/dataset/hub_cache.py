"""A data set of the Hugging Face hub as it lies in the caches of this machine: nothing is downloaded, no script is run.

Two places, as datasets 2.14 to 4 and huggingface_hub use them: the Arrow files that an earlier `load_dataset` wrote
(HF_DATASETS_CACHE/OWNER___NAME/SUBSET/VERSION/HASH/NAME-SPLIT.arrow), otherwise the files of the repository
(HF_HUB_CACHE/datasets--OWNER--NAME/snapshots/COMMIT).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from doctor.config.preflight import FILE_TYPES
from doctor.dataset.attributes import Attributes

_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_SPLITS = re.compile(r"(?<![a-z])(train|test|validation|valid|dev|val|eval)(?![a-z])", re.IGNORECASE)
_CARD_BYTES = 1 << 20


def cached_files(name: str, about: Attributes, config: Mapping[str, Any]) -> list[Path]:
    """The files of the data set `owner/name` at the wanted subset and split, in the order of their names; [] where none are here, or where
    it is not certain which of them `load_dataset` would take."""
    if not _NAME.fullmatch(name) or ".." in name:
        return []
    try:
        return _arrow_files(name, about, config) or _repository_files(name, about)
    except OSError:
        return []


def _arrow_files(name: str, about: Attributes, config: Mapping[str, Any]) -> list[Path]:
    """What was written last, where there is one subset or the wanted one."""
    if about.folder:
        return []  # it is part of the hash of the folder, and cannot be told from another
    for root in _datasets_caches(config):
        subsets = [place for place in (root / name.replace("/", "___")).glob("*") if place.is_dir()]
        if about.subset:
            subsets = [place for place in subsets if place.name == about.subset]
        if len(subsets) != 1:
            continue
        infos = sorted(subsets[0].glob("*/*/dataset_info.json"), key=lambda file: file.stat().st_mtime)
        found = _of_split(infos[-1].parent, about.split) if infos else []
        if found:
            return found
    return []


def _of_split(folder: Path, split: str) -> list[Path]:
    """NAME-SPLIT.arrow, or all parts NAME-SPLIT-00000-of-00003.arrow."""
    wanted = re.compile(rf"-{re.escape(split)}(?:-(\d{{5}})-of-(\d{{5}}))?\.arrow")
    files = {file: part for file in sorted(folder.glob("*.arrow")) if (part := wanted.search(file.name))}
    whole = all(int(part[2] or 1) == len(files) for part in files.values())
    return list(files) if whole else []


def _repository_files(name: str, about: Attributes) -> list[Path]:
    """The files of one type below the snapshot of `main`. A card that names configurations decides otherwise: then none are taken."""
    for root in _hub_caches():
        base = root / f"datasets--{name.replace('/', '--')}"
        main = base / "refs" / "main"
        if not main.is_file():
            continue
        snapshot = base / "snapshots" / main.read_text(encoding="utf-8", errors="replace").strip()[:64]
        if about.subset or _names_configurations(snapshot / "README.md") or snapshot.parent != base / "snapshots":
            return []
        folder = snapshot / about.folder if about.folder else snapshot
        files = [file for file in sorted(folder.rglob("*")) if file.suffix[1:] in FILE_TYPES and file.is_file() and file.suffix != ".txt"]
        named = [file for file in files if _SPLITS.search(str(file.relative_to(folder)))]
        chosen = [file for file in named if about.split in str(file.relative_to(folder))] if named else files
        return chosen if len({file.suffix for file in chosen}) == 1 and (about.split == "train" or named) else []
    return []


def _names_configurations(card: Path) -> bool:
    if not card.is_file():
        return False
    with card.open("rb") as stream:
        head = stream.read(_CARD_BYTES).decode("utf-8", "replace")
    return head.startswith("---") and re.search(r"^(?:configs|dataset_info):", head.partition("\n---\n")[0], re.MULTILINE) is not None


def _home() -> Path:
    return Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")


def _datasets_caches(config: Mapping[str, Any]) -> Iterator[Path]:
    """`cache_dir` of the configuration is also where the data sets go (data/loader.py)."""
    given = config.get("cache_dir")
    yield from [Path(str(given)).expanduser()] if given else []
    yield Path(os.environ.get("HF_DATASETS_CACHE") or _home() / "datasets")


def _hub_caches() -> Iterator[Path]:
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    yield from [Path(given)] if given else []
    yield _home() / "hub"
