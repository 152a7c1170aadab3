"""A data set of a hub (Hugging Face, ModelScope) as it lies in the caches of this machine: nothing is downloaded, no script is run.

Two places, as datasets 2.14 to 4 and huggingface_hub use them: the Arrow files that an earlier `load_dataset` wrote
(HF_DATASETS_CACHE/OWNER___NAME/SUBSET/VERSION/HASH/NAME-SPLIT.arrow), otherwise the files of the repository
(HF_HUB_CACHE/datasets--OWNER--NAME/snapshots/COMMIT).

modelscope 1.14 to 1.40 calls the same `load_dataset` with a cache of its own, MODELSCOPE_CACHE/datasets (`MsDataset.load`); files that were
downloaded by hand lie below it in OWNER/NAME, since modelscope_hub also in OWNER--NAME/snapshots/master.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from doctor.config.preflight import FILE_TYPES
from doctor.dataset.attributes import Attributes

_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_SPLITS = re.compile(r"(?<![a-z])(train|test|validation|valid|dev|val|eval)(?![a-z])", re.IGNORECASE)
_CARD_BYTES = 1 << 20
_NO_DATA = ("dataset_infos.json", "configuration.json")
"""JSON files that describe a repository."""


Hub = Literal["hf", "ms", "om"]


def enabled(hub: Hub) -> bool:
    """Whether a variable has LLaMA-Factory ask this hub in place of Hugging Face (extras/misc.py, is_env_enabled)."""
    variable = {"hf": "", "ms": "USE_MODELSCOPE_HUB", "om": "USE_OPENMIND_HUB"}[hub]
    return os.environ.get(variable, "0").lower() in ("true", "y", "1")


def cached_files(name: str, about: Attributes, config: Mapping[str, Any], hub: Hub = "hf") -> list[Path]:
    """The files of the data set `owner/name` at the wanted subset and split, in the order of their names; [] where none are here, or where
    it is not certain which of them `load_dataset` would take."""
    if not _NAME.fullmatch(name) or ".." in name or hub == "om":
        return []
    try:
        return _arrow_files(name, about, config, hub) or _repository_files(name, about, config, hub)
    except OSError:
        return []


def _arrow_files(name: str, about: Attributes, config: Mapping[str, Any], hub: Hub) -> list[Path]:
    """What was written last, where there is one subset or the wanted one."""
    if about.folder:
        return []  # it is part of the hash of the folder, and cannot be told from another
    for root in _datasets_caches(config, hub):
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


def _repository_files(name: str, about: Attributes, config: Mapping[str, Any], hub: Hub) -> list[Path]:
    """The files of one type of the repository. A card that names configurations decides otherwise: then none are taken."""
    places = _snapshots(name) if hub == "hf" else _modelscope_folders(name, config)
    snapshot = next(places, None)
    if snapshot is None or about.subset or _names_configurations(snapshot / "README.md"):
        return []
    folder = snapshot / about.folder if about.folder else snapshot
    files = [file for file in sorted(folder.rglob("*")) if file.suffix[1:] in FILE_TYPES and file.is_file() and file.suffix != ".txt"]
    files = [file for file in files if file.name not in _NO_DATA]
    named = [file for file in files if _SPLITS.search(str(file.relative_to(folder)))]
    chosen = [file for file in named if about.split in str(file.relative_to(folder))] if named else files
    return chosen if len({file.suffix for file in chosen}) == 1 and (about.split == "train" or named) else []


def _snapshots(name: str) -> Iterator[Path]:
    """The snapshot of `main` in the caches of huggingface_hub."""
    for root in _hub_caches():
        base = root / f"datasets--{name.replace('/', '--')}"
        main = base / "refs" / "main"
        if main.is_file():
            snapshot = base / "snapshots" / main.read_text(encoding="utf-8", errors="replace").strip()[:64]
            yield from [snapshot] if snapshot.parent == base / "snapshots" else []


def _modelscope_folders(name: str, config: Mapping[str, Any]) -> Iterator[Path]:
    """The files of a repository in the caches of modelscope, which writes a dot as three underscores (modelscope_hub/_download.py)."""
    owner, _, repository = name.partition("/")
    for root in _datasets_caches(config, "ms"):
        places = [root / f"{owner}--{repository}" / "snapshots" / revision for revision in ("master", "main")]
        places += [root / owner / repository.replace(".", "___"), root / owner / repository]
        yield from (place for place in places if place.is_dir())


def _names_configurations(card: Path) -> bool:
    if not card.is_file():
        return False
    with card.open("rb") as stream:
        head = stream.read(_CARD_BYTES).decode("utf-8", "replace")
    return head.startswith("---") and re.search(r"^(?:configs|dataset_info):", head.partition("\n---\n")[0], re.MULTILINE) is not None


def _home() -> Path:
    return Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")


def _datasets_caches(config: Mapping[str, Any], hub: Hub) -> Iterator[Path]:
    """`cache_dir` of the configuration is also where the data sets go (data/loader.py)."""
    given = config.get("cache_dir")
    yield from [Path(str(given)).expanduser()] if given else []
    if hub == "hf":
        yield Path(os.environ.get("HF_DATASETS_CACHE") or _home() / "datasets")
        return
    home = Path.home() / ".cache" / "modelscope"
    chosen = os.environ.get("MODELSCOPE_CACHE")
    for root in [Path(chosen).expanduser()] if chosen else [home / "hub", home]:
        yield root / "datasets"


def _hub_caches() -> Iterator[Path]:
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    yield from [Path(given)] if given else []
    yield _home() / "hub"
