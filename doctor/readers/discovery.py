"""Which files of the given paths may tell something: one careful walk that never opens weights, pipes or data sets."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

DEPTH = 3
FILES = 5000
"""So many files are looked at in all."""
CROWD = 1000
"""A folder with more entries than this is a data set: only files with telling names are looked at."""

_SKIPPED_FOLDERS = frozenset(
    {".git", ".cache", "__pycache__", "node_modules", ".venv", "venv", "site-packages", ".mypy_cache", ".pytest_cache"}
)
_SKIPPED_ENDINGS = (
    ".safetensors", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".npy", ".npz", ".arrow", ".parquet", ".lock",
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".mp4", ".mp3", ".wav", ".jinja", ".model", ".tiktoken", ".pyc", ".so",
    ".tar", ".tgz", ".zip", ".7z", ".csv", ".tsv", ".py", ".ipynb", ".html", ".js", ".css", ".whl",
)  # fmt: skip
_SKIPPED_NAMES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "special_tokens_map.json",
     "generation_config.json", "preprocessor_config.json", "model.safetensors.index.json", "requirements.txt", "dataset_info.json"}
)  # fmt: skip
_TELLING = ("log", "trainer_", "events.out", "train", ".yaml", ".yml", ".out", ".err", "results.json", "config.json")


def worth_a_look(name: str) -> bool:
    """Whether a file of this name may hold something readable; weights may not (training_args.bin is no weights)."""
    low = name.lower()
    if low.endswith(".bin"):
        return low == "training_args.bin"
    return low not in _SKIPPED_NAMES and not low.removesuffix(".gz").endswith(_SKIPPED_ENDINGS)


def walk(root: Path) -> Iterator[Path]:
    """Regular files under `root`, `DEPTH` folders deep, in a fixed order; links are followed once, loops end."""
    seen: set[tuple[int, int]] = set()
    budget = [FILES]
    yield from _walk(root, 0, seen, budget)


def _walk(folder: Path, depth: int, seen: set[tuple[int, int]], budget: list[int]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
    except OSError:
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    if status.st_ino:
        seen.add((status.st_dev, status.st_ino))
    folders: list[Path] = []
    crowded = len(entries) > CROWD
    for entry in entries:
        kind = _kind(entry)
        if kind == "folder" and not crowded and entry.name not in _SKIPPED_FOLDERS:
            folders.append(Path(entry.path))
        elif kind == "file" and budget[0] > 0 and worth_a_look(entry.name):
            if crowded and not any(word in entry.name.lower() for word in _TELLING):
                continue
            budget[0] -= 1
            yield Path(entry.path)
    if depth < DEPTH:
        for one in folders:
            yield from _walk(one, depth + 1, seen, budget)


def _kind(entry: os.DirEntry[str]) -> str:
    """`file`, `folder`, or empty for everything that is neither (pipes, sockets, devices, dead links)."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else ""


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key under which `checkpoint-9` stands before `checkpoint-10`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]{1,18})", name) if part]
