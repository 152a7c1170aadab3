"""Find a model's config.json on this machine: at the path that the configuration names, or in the cache of a hub."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Where to look: the folder to which relative paths belong beside the working directory, and the option `cache_dir`."""

    folder: str = ""
    cache: str = ""


NOWHERE = Place()
"""Only the working directory and the caches of this machine."""


def place_of(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Place:
    """The place of a run's configuration."""
    return Place(str(facts.get("config.folder") or ""), str(config.get("cache_dir") or ""))


def find(name: str, place: Place) -> Path | None:
    """The config.json of `model_name_or_path`, a path or a repository id; None if there is none here."""
    if not name or "\0" in name:
        return None
    try:
        return next((file for file in _candidates(name, place) if file.is_file()), None)
    except OSError:
        return None


def _candidates(name: str, place: Place) -> Iterator[Path]:
    path = Path(name).expanduser()
    for folder in (path, Path(place.folder) / path) if place.folder else (path,):
        yield folder if folder.suffix == ".json" else folder / "config.json"
        yield from _snapshots(folder)
    parts = name.replace("\\", "/").split("/")
    if len(parts) == 2 and all(parts) and not name.startswith((".", "~", "/")):
        yield from _cached(parts[0], parts[1], place.cache)


def _cached(owner: str, repository: str, cache: str) -> Iterator[Path]:
    """The caches of Hugging Face and of ModelScope, first that of the hub which LLaMA-Factory asks (extras/misc.py)."""
    places = [_of_hugging_face, _of_modelscope]
    if os.environ.get("USE_MODELSCOPE_HUB", "0").lower() in ("true", "y", "1"):
        places.reverse()
    for place in places:
        yield from place(owner, repository, cache)


def _of_hugging_face(owner: str, repository: str, cache: str) -> Iterator[Path]:
    """huggingface_hub/constants.py."""
    given = os.environ
    hub = given.get("HF_HUB_CACHE") or given.get("HUGGINGFACE_HUB_CACHE")
    base = Path(given.get("HF_HOME") or Path(given.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    for root in filter(None, (cache, hub, str(base / "hub"))):
        yield from _snapshots(Path(root).expanduser() / f"models--{owner}--{repository}")


def _of_modelscope(owner: str, repository: str, cache: str) -> Iterator[Path]:
    """modelscope up to 1.37 writes a dot as three underscores; modelscope_hub keeps snapshots (modelscope_hub/_download.py)."""
    home = Path.home() / ".cache" / "modelscope"
    chosen = os.environ.get("MODELSCOPE_CACHE")
    for root in filter(None, (cache, *([chosen] if chosen else [str(home / "hub"), str(home)]))):
        for folder in (Path(root).expanduser() / "models", Path(root).expanduser()):
            for revision in ("master", "main"):
                yield folder / f"{owner}--{repository}" / "snapshots" / revision / "config.json"
            yield folder / owner / repository.replace(".", "___") / "config.json"


def _snapshots(folder: Path) -> Iterator[Path]:
    """config.json of a repository's snapshots in Hugging Face's cache: that of `main` first, then the newest."""
    root = folder / "snapshots"
    if not root.is_dir():
        return
    main = folder / "refs" / "main"
    if main.is_file():
        yield root / main.read_text(encoding="utf-8", errors="replace").strip() / "config.json"
    yield from sorted(root.glob("*/config.json"), key=lambda file: file.stat().st_mtime, reverse=True)
