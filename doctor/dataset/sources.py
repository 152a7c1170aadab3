"""Where the data sets of a configuration lie on this machine: LLaMA-Factory 0.9.5 data/parser.py and data/loader.py."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.config.preflight import FILE_TYPES
from doctor.dataset.attributes import FORMATS, Attributes, attributes
from doctor.dataset.hub_cache import Hub, cached_files, enabled

MAX_INFO_BYTES = 32 << 20
"""The largest dataset_info.json that is read; LLaMA-Factory's own has 18 kB."""
_HUBS: dict[str, Hub] = {"ms_hub_url": "ms", "om_hub_url": "om", "hf_hub_url": "hf"}


class Source(msgspec.Struct, frozen=True):
    """One data set of the configuration.

    `role`: train or eval. `files` in the order in which LLaMA-Factory's loader gets them, all of type `kind` (json, csv, text, parquet,
    arrow). `problem` names what keeps it from being read (a text of words/data.yaml, group problem), `detail` what it is about;
    `fatal`: LLaMA-Factory stops there too.
    """

    name: str
    role: str
    attributes: Attributes = Attributes()
    files: tuple[Path, ...] = ()
    kind: str = ""
    problem: str = ""
    detail: str = ""
    fatal: bool = False


def find_sources(config: Mapping[str, Any], folder: Path) -> list[Source]:
    """The data sets of `dataset` and `eval_dataset`; `folder` is the working directory of the training."""
    place = str(config.get("dataset_dir") or "data")
    names = [(name, role) for role, key in (("train", "dataset"), ("eval", "eval_dataset")) for name in dataset_names(config.get(key))]
    if place == "ONLINE":
        asked: Hub = "ms" if enabled("ms") else "om" if enabled("om") else "hf"
        return [_on_hub(Source(name, role), name, asked, config) for name, role in names]
    if place.startswith("REMOTE:"):
        return [Source(name, role, problem="on_a_hub", detail=place) for name, role in names]
    try:
        info = _read_info(info_file(config, folder))
    except (OSError, ValueError) as error:
        return [Source(name, role, problem="no_info", detail=f"{place}/dataset_info.json: {error}", fatal=True) for name, role in names]
    return [_source(name, role, info, folder / place, config) for name, role in names]


def info_file(config: Mapping[str, Any], folder: Path) -> Path:
    """The dataset_info.json of a configuration."""
    return folder / str(config.get("dataset_dir") or "data") / "dataset_info.json"


def dataset_names(value: Any) -> list[str]:
    """The names in `dataset: a, b`, or in a list."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return [name for part in parts if (name := str(part).strip())]


def _read_info(path: Path) -> dict[str, Any]:
    problem, detail = readable(path)
    if problem:
        raise OSError(f"{problem} {detail}".strip())
    if path.stat().st_size > MAX_INFO_BYTES:
        raise ValueError("too large")
    try:
        info = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(info, dict):
        raise ValueError("not a mapping")
    return info


def _source(name: str, role: str, info: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Source:
    entry, stage = info.get(name), str(config.get("stage") or "sft")
    if not isinstance(entry, Mapping):
        return Source(name, role, problem="undefined", detail=name, fatal=True)
    about = attributes(entry)
    if about.formatting not in FORMATS:
        return Source(name, role, about, problem="formatting", detail=str(about.formatting), fatal=True)
    if about.ranking is not (stage in ("rm", "dpo")):  # stage dpo loads its data as "rm" (train/dpo/workflow.py)
        return Source(name, role, about, problem="ranking" if about.ranking else "no_ranking", detail=stage, fatal=True)
    if any(hub in entry for hub in _HUBS):
        return _on_hub(Source(name, role, about), *_hub_of(entry), config)
    if "file_name" not in entry or "script_url" in entry or "cloud_file_name" in entry:
        return Source(name, role, about, problem="not_a_file", detail=str(entry.get("script_url") or entry.get("cloud_file_name") or ""))
    return _with_files(Source(name, role, about), folder / str(entry["file_name"]))


def _hub_of(entry: Mapping[str, Any]) -> tuple[str, Hub]:
    """The name that LLaMA-Factory asks for, and the hub (data/parser.py): another than Hugging Face if a variable or the entry says so."""
    for key, hub in _HUBS.items():
        if key in entry and (enabled(hub) or hub == "hf" or "hf_hub_url" not in entry):
            return str(entry[key] or ""), hub
    return "", "hf"


def _on_hub(source: Source, name: str, hub: Hub, config: Mapping[str, Any]) -> Source:
    """The source with its files in the caches of the hub."""
    files = cached_files(name, source.attributes, config, hub) if name else []
    if not files:
        return msgspec.structs.replace(source, problem="on_a_hub", detail=name or source.name)
    kind = "arrow" if files[0].suffix == ".arrow" else str(FILE_TYPES[files[0].suffix[1:]])
    return msgspec.structs.replace(source, files=tuple(files), kind=kind)


def _with_files(source: Source, path: Path) -> Source:
    """The source with its files, or with what is wrong about them."""
    files = _listing(path)
    if not files:
        return msgspec.structs.replace(source, problem="missing", detail=str(path), fatal=True)
    kinds = {FILE_TYPES.get(file.suffix[1:]) for file in files}
    if None in kinds or len(kinds) > 1:
        problem = "file_type" if FILE_TYPES.get(files[0].suffix[1:]) is None else "mixed_types"
        return msgspec.structs.replace(source, problem=problem, detail=", ".join(file.name for file in files[:5]), fatal=True)
    for file in files:
        problem, detail = readable(file)
        if problem:
            return msgspec.structs.replace(source, problem=problem, detail=f"{file} {detail}".strip())
    return msgspec.structs.replace(source, files=tuple(files), kind=kinds.pop())


def _listing(path: Path) -> list[Path]:
    """The files of a folder in the order of os.listdir, as the loader takes them; or the file itself."""
    try:
        if path.is_dir():
            return [path / name for name in os.listdir(path)]  # noqa: PTH208 (the same order as in LLaMA-Factory)
        return [path] if path.exists() else []
    except (OSError, ValueError):
        return []


def readable(path: Path) -> tuple[str, str]:
    """("", "") for a file that can be opened without waiting; otherwise the problem's name and a detail."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "not_regular", ""
        with path.open("rb"):
            return "", ""
    except OSError as error:
        return "unreadable", error.strerror or str(error)


def media_folder(config: Mapping[str, Any], folder: Path) -> Path:
    """`media_dir`, by default `dataset_dir` (hparams/data_args.py)."""
    return folder / str(config.get("media_dir") or config.get("dataset_dir") or "data")


def files_of(sources: list[Source]) -> Iterator[Path]:
    """Every file that is read."""
    for source in sources:
        yield from source.files
